// Recent requests, and where the time to their first two tokens went.

const REQUESTS_SHOWN = 12;
let allRequests = false;
const opened = new Set();

const STAGES = {
  parse: "parse",
  admission: "admission",
  reserve: "reserve",
  prefill_queue: "prefill queue",
  prefill: "prefill",
  relay: "relay",
  commit: "commit",
  parked: "parked",
  exposed_transfer: "exposed transfer",
  decode_queue: "decode queue",
  first_step: "first step",
  handover_relay: "relay of the second",
  handover_rest: "rest of the hand-over",
};
const RESULTS = {
  met: ["met", "--good"],
  missed_ttft: ["missed TTFT", "--warn"],
  missed_tpot: ["missed TPOT", "--warn"],
  missed_both: ["missed both", "--warn"],
  refused: ["refused", "--bad"],
  failed: ["failed", "--worse"],
  cancelled: ["cancelled", "--gone"],
};

const stageName = (stage) => STAGES[stage] ?? stage.replaceAll("_", " ");
const stageColor = (stage) => `var(--s-${stage}, var(--gone))`;
const whole = (request) => sum(Object.values(request.to_first)) + sum(Object.values(request.hand_over));

// A round figure that nearly all of them fit in; the rest is cut off.
function scaleOf(requests) {
  const most = quantile(requests.map(whole), 0.9) ?? 0;
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 0.1)));
  return power * [1, 1.5, 2, 3, 5, 7.5, 10].find((step) => step * power >= most * 1.02);
}

function makeRequest(request) {
    const button = el("button", { type: "button", "aria-expanded": "false", onclick: () => open(request.number) },
    el("span", { class: "ago" }), el("span", { class: "result" }), el("span", { class: "tokens" }),
    el("span", { class: "route" }), el("span", { class: "stages", "aria-hidden": "true" }),
    el("span", { class: "figures-of ttft" }), el("span", { class: "figures-of tpot" }));
  return el("div", { class: "request", role: "listitem" }, button);
}

function open(number) {
  if (opened.has(number)) opened.delete(number);
  else opened.add(number);
  if (lastState) showRequests(lastState);
}

function bar(request, scale) {
  const pieces = [];
  for (const [group, stages] of [["first", request.to_first], ["second", request.hand_over]]) {
    Object.entries(stages).filter(([, ms]) => ms > 0).forEach(([stage, ms], i) => {
      pieces.push(el("i", {
        class: group === "second" && i === 0 ? "second" : null,
        style: { width: `${(100 * ms) / scale}%`, background: stageColor(stage) },
        title: `${stageName(stage)} ${formatMs(ms)}`,
      }));
    });
  }
  return pieces;
}

function routeOf(request) {
  if (!request.prefill && !request.decode) return "";
  if (request.prefill === request.decode || !request.decode) return request.prefill;
  return request.prefill ? `${request.prefill} → ${request.decode}` : request.decode;
}

function details(request) {
  const fact = (name, value) => el("span", {}, `${name} `, el("b", {}, value));
  const facts = [...Object.entries(request.to_first), ...Object.entries(request.hand_over)]
    .map(([stage, ms]) => fact(stageName(stage), formatMs(ms)));
  facts.push(fact("in all", formatMs(request.took_ms)), fact("class", request.class), fact("ended", request.finish));
  if (request.cached_tokens > 0) facts.push(fact("cached tokens", formatCount(request.cached_tokens)));
  if (request.kv_bytes > 0) facts.push(fact("KV", formatBytes(request.kv_bytes)));
  if (request.retries > 0) facts.push(fact("retries", String(request.retries)));
  if (request.tenant) facts.push(fact("tenant", request.tenant));
  if (request.id) facts.push(fact("id", request.id));
  return facts;
}

function updateRequest(node, request, scale) {
  const button = node.firstElementChild;
  const [ago, result, tokens, route, stages, ttft, tpot] = button.children;
  const [name, color] = RESULTS[request.result] ?? [request.result, "--gone"];
  setText(ago, formatAgo(request.ago_ms / 1000));
  setText(result, name);
  result.style.setProperty("--mood", `var(${color})`);
  setText(tokens, `${formatCount(request.prompt_tokens)} → ${formatCount(request.output_tokens)}`);
  setText(route, routeOf(request));
  setText(ttft, formatMs(request.ttft_ms));
  setText(tpot, formatMs(request.tpot_ms));
  setAttributes(ttft, { "aria-label": `TTFT ${formatMs(request.ttft_ms)}` });
  setAttributes(tpot, { "aria-label": `TPOT ${formatMs(request.tpot_ms)}` });
  if (node.dataset.scale !== String(scale)) {
    stages.replaceChildren(...bar(request, scale));
    node.dataset.scale = scale;
  }
  const isOpen = opened.has(request.number);
  setAttributes(button, { "aria-expanded": String(isOpen) });
  if (isOpen && !node.children[1]) node.append(el("p", { class: "more" }, ...details(request)));
  if (!isOpen && node.children[1]) node.children[1].remove();
}

function setUpRequests() {
  const names = ["ago", "result", "tokens", "workers"];
  $("requests").append(
    el("div", { class: "head", "aria-hidden": "true" }, ...names.map((name) => el("span", {}, name)),
      el("span", { class: "scale" }, el("span", {}, "0"), el("span")), el("span", {}, "TTFT"), el("span", {}, "TPOT")),
    el("div", { role: "list" }),
    el("button", {
      type: "button",
      class: "quiet more-button",
      onclick: () => {
        allRequests = !allRequests;
        if (lastState) showRequests(lastState);
      },
    }),
    el("p", { class: "nothing" }, "No request has ended yet. Try the chat."));
}

function showRequests(state) {
  const [head, list, button, nothing] = $("requests").children;
  const shown = state.requests.slice(0, allRequests ? undefined : REQUESTS_SHOWN);
  const scale = scaleOf(shown);
  // Another router, or this one after a restart, counts anew.
  keep(list, shown, (request) => `${request.number}|${request.took_ms}`, makeRequest, (node, request) => updateRequest(node, request, scale));
  setText(head.children[4].lastElementChild, formatMs(scale));
  const hidden = state.requests.length - shown.length;
  head.hidden = state.requests.length === 0;
  nothing.hidden = state.requests.length > 0;
  button.hidden = hidden === 0 && !allRequests;
  setText(button, allRequests ? "Show fewer" : `and ${hidden} more`);
  const present = new Set(shown.flatMap((r) => [...Object.entries(r.to_first), ...Object.entries(r.hand_over)]
    .filter(([, ms]) => ms > scale / 500).map(([stage]) => stage)));
  const order = [...Object.keys(STAGES), ...present];
  keep($("stages-legend"), [...new Set(order)].filter((stage) => present.has(stage)), (stage) => stage,
    (stage) => el("li", {}, el("i", { style: { background: stageColor(stage) } }), stageName(stage)));
  for (const number of opened) if (!state.requests.some((r) => r.number === number)) opened.delete(number);
}
