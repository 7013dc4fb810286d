// Pools, their workers, and what goes between them.

const FOLDED = 8; // workers of a pool that are shown until one asks for more
const ROW = 48; // pixels of a worker's row, with its gap, and of a pool's head: panels.css
const HEAD = 24;
const PAIRS_SHOWN = 6;
const unfolded = new Set();

const ROLES = { prefill: "Prefill", decode: "Decode", mixed: "Mixed", unknown: "Not connected" };
const STATES = { lost: "lost", draining: "draining", connecting: "not ready", refused: "refused" };

// Those in trouble and the fullest stay in sight.
function foldedWorkers(role, all) {
  if (all.length <= FOLDED || unfolded.has(role)) return all;
  const weight = (w) => (w.state === "ready" ? occupancy(w) : 2);
  const chosen = [...all].sort((a, b) => weight(b) - weight(a)).slice(0, FOLDED);
  return chosen.sort((a, b) => byName(a.name, b.name));
}

function occupancy(worker) {
  return worker.total_blocks > 0 ? 1 - worker.free_blocks / worker.total_blocks : 0;
}

function makeWorker() {
  return el("div", { class: "worker", role: "listitem" },
    el("span", { class: "name" }),
    el("span", { class: "load" }),
    el("span", { class: "meter", role: "img" }, el("i"), el("i", { class: "parked" })),
    el("span", { class: "percent" }));
}

function loadOf(worker) {
  if (worker.role === "unknown") return [];
  const running = worker.role === "prefill" ? worker.running : Math.max(worker.running, worker.sequences);
  const parts = [el("b", {}, String(running)), worker.role === "prefill" ? " running" : " in batch"];
  if (worker.waiting > 0) parts.push(" · ", el("b", {}, String(worker.waiting)), " queued");
  return parts;
}

function titleOf(worker) {
  const lines = [
    worker.address,
    worker.model && `model ${worker.model}`,
    worker.auto && "its role may change",
    worker.queued_tokens > 0 && `${formatCount(worker.queued_tokens)} prompt tokens to compute`,
    worker.context_tokens > 0 && `${formatCount(worker.context_tokens)} tokens of context in its batch`,
    worker.total_blocks > 0 &&
      `${worker.total_blocks - worker.free_blocks} of ${worker.total_blocks} KV blocks in use`,
    worker.parked_blocks > 0 && `${worker.parked_blocks} of them parked: decode has no room yet`,
  ];
  return lines.filter(Boolean).join("\n");
}

function updateWorker(node, worker) {
  const [name, load, meter, percent] = node.children;
  const label = worker.name || worker.address || "no worker yet";
  const tag = STATES[worker.state];
  setText(name, "");
  name.append(label, ...(tag ? [el("span", { class: "tag" }, tag)] : []));
  load.replaceChildren(...loadOf(worker));
  const used = occupancy(worker);
  const parked = worker.total_blocks > 0 ? worker.parked_blocks / worker.total_blocks : 0;
  meter.children[0].style.width = `${100 * Math.max(0, used - parked)}%`;
  meter.children[1].style.width = `${100 * parked}%`;
  meter.hidden = worker.total_blocks === 0;
  const known = worker.total_blocks > 0 ? formatPercent(used) : "";
  setAttributes(meter, { "data-full": used > 0.95 ? "" : null, "aria-label": `KV cache ${known} used` });
  setText(percent, known && `KV ${known}`);
  setAttributes(node, { "data-state": worker.state, title: titleOf(worker) });
}

function poolLine(pool) {
  const parts = [`${pool.ready} of ${pool.workers} ready`];
  if (pool.waiting > 0) parts.push(`${formatCount(pool.waiting)} queued`);
  if (pool.total_blocks > 0) parts.push(`KV ${formatPercent(1 - pool.free_blocks / pool.total_blocks)}`);
  return parts.join(" · ");
}

function makePool(role) {
  return el("section", { class: "pool", "aria-label": `${ROLES[role]} workers` },
    el("header", {}, el("h3", {}, ROLES[role]), el("p", { class: "dim" })),
    el("div", { class: "workers", role: "list" }),
    el("button", { type: "button", class: "quiet more-button", onclick: () => toggle(role) }));
}

function toggle(role) {
  if (unfolded.has(role)) unfolded.delete(role);
  else unfolded.add(role);
  if (lastState) showCluster(lastState);
}

function updatePool(node, pool, workers) {
  const [header, list, button] = node.children;
  setText(header.children[1], pool.role === "unknown" ? plural(pool.workers, "address", "addresses") : poolLine(pool));
  const shown = foldedWorkers(pool.role, workers);
  keep(list, shown, (w) => `${w.name}|${w.address ?? ""}|${w.state === "ready"}`, makeWorker, updateWorker);
  const hidden = pool.workers - shown.length;
  const open = unfolded.has(pool.role);
  button.hidden = !open && hidden === 0;
  setText(button, !open ? `and ${formatCount(hidden)} more` : hidden > 0 ? `Show fewer (${formatCount(hidden)} more are not listed)` : "Show fewer");
  setAttributes(button, { "aria-expanded": String(open) });
  return shown;
}

// The lines between the two columns: the busier, the thicker.
function drawLinks(picture, pairs, left, right) {
  const rows = (workers) => new Map(workers.map((w, i) => [w.name, HEAD + i * ROW + (ROW - 6) / 2]));
  const from = rows(left);
  const to = rows(right);
  const most = Math.max(1, ...pairs.map((pair) => pair.bytes_per_second));
  const drawn = pairs.filter((pair) => from.has(pair.prefill) && to.has(pair.decode));
  setAttributes(picture, { viewBox: `0 0 140 ${HEAD + ROW * Math.max(left.length, right.length)}` });
  keep(picture, drawn, (pair) => `${pair.prefill}|${pair.decode}`,
    () => svg("path", {}, svg("title")),
    (path, pair) => {
      const a = from.get(pair.prefill);
      const b = to.get(pair.decode);
      const busy = pair.bytes_per_second > most / 1000 && pair.bytes_per_second > 100;
      setAttributes(path, {
        class: busy ? "link busy" : "link",
        d: `M4 ${a} C 62 ${a}, 78 ${b}, 136 ${b}`,
        "stroke-width": (1 + (busy ? 5 * Math.sqrt(pair.bytes_per_second / most) : 0)).toFixed(1),
      });
      setText(path.firstElementChild, `${pair.prefill} to ${pair.decode}: ${formatBytes(pair.bytes_per_second)}/s`);
    });
}

function pairTable() {
  const heads = ["Hand-overs", "a second", "in all", "requests", "exposed, mean"];
  return el("table", { class: "pairs" },
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody"));
}

function updatePairs(table, state) {
  const shown = state.pairs.slice(0, PAIRS_SHOWN);
  const body = table.tBodies[0];
  keep(body, shown, (pair) => `${pair.prefill}|${pair.decode}`,
    () => el("tr", {}, el("td"), el("td"), el("td"), el("td"), el("td")),
    (row, pair) => {
      const texts = [
        `${pair.prefill} → ${pair.decode}`,
        `${formatBytes(pair.bytes_per_second)}/s`,
        formatBytes(pair.bytes),
        formatCount(pair.hand_overs),
        formatMs(pair.exposed_ms / Math.max(1, pair.hand_overs)),
      ];
      texts.forEach((text, i) => setText(row.cells[i], text));
    });
  const more = state.num_pairs - shown.length;
  if (table.tFoot) table.deleteTFoot();
  if (more > 0) table.append(el("tfoot", {}, el("tr", {}, el("td", { class: "dim" }, `and ${plural(more, "pair")} more`))));
  table.hidden = state.num_pairs === 0;
}

function setUpCluster() {
  const flow = el("div", { class: "flow" }, makePool("prefill"),
    svg("svg", { "aria-hidden": "true", preserveAspectRatio: "none" }), makePool("decode"));
  const plain = ["mixed", "unknown"].map((role) => {
    const pool = makePool(role);
    pool.classList.add("plain");
    return pool;
  });
  $("cluster").append(flow,
    el("div", { class: "under" }, el("div", { class: "pools" }, ...plain), pairTable()),
    el("p", { class: "nothing" }, "No worker has been heard of yet."));
}

function showCluster(state) {
  const [flow, under, nothing] = $("cluster").children;
  const [pools, table] = under.children;
  const [mixed, unknown] = pools.children;
  const [prefill, picture, decode] = flow.children;
  const of = (role) => state.workers.filter((w) => w.role === role).sort((a, b) => byName(a.name, b.name));
  const shown = {};
  for (const [role, node] of Object.entries({ prefill, decode, mixed, unknown })) {
    const pool = state.pools.find((p) => p.role === role);
    node.hidden = !pool;
    shown[role] = pool ? updatePool(node, pool, of(role)) : [];
  }
  pools.hidden = mixed.hidden && unknown.hidden;
  flow.hidden = prefill.hidden && decode.hidden;
  flow.classList.toggle("single", prefill.hidden !== decode.hidden);
  picture.toggleAttribute("hidden", prefill.hidden || decode.hidden);
  if (!flow.hidden) drawLinks(picture, state.pairs, shown.prefill, shown.decode);
  updatePairs(table, state);
  nothing.hidden = state.num_workers > 0;
  const known = sum(state.pools.filter((p) => p.role !== "unknown").map((p) => p.workers));
  const rate = sum(state.pairs.map((pair) => pair.bytes_per_second));
  setText($("workers-sum"), `${plural(known, "worker")}${rate > 0 ? ` · ${formatBytes(rate)}/s of KV handed over` : ""}`);
}
