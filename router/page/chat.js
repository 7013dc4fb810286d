// The chat box: a client of the API like any other, whose words stay in this page.

const KEPT = 61; // messages of the conversation that are shown and sent; odd: a question is the first
let conversation = [];
let running = null; // an AbortController while an answer comes

function say(kind, text) {
  const log = $("chat-log");
  log.querySelector(".empty")?.remove();
  const node = el("p", { class: `said ${kind}` }, text);
  log.append(node);
  while (log.children.length > 2 * KEPT) log.firstElementChild.remove();
  log.scrollTop = log.scrollHeight;
  $("chat-clear").hidden = false;
  return node;
}

// Server-sent events, as they come: calls `each` with every event's data.
async function readEvents(answer, each) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    pending += value;
    const events = pending.split("\n\n");
    pending = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
      if (data.length && data[0] !== "[DONE]") each(JSON.parse(data.join("\n")));
    }
  }
}

// Text that comes in pieces is put on the page once a frame, however many those are.
function makeWriter(node) {
  const text = node.appendChild(document.createTextNode(""));
  let pending = "";
  let asked = false;
  const write = () => {
    const log = $("chat-log");
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    text.appendData(pending);
    pending = "";
    asked = false;
    if (follows) log.scrollTop = log.scrollHeight;
  };
  return {
    add(piece) {
      pending += piece;
      if (!asked) requestAnimationFrame(write);
      asked = true;
    },
    end() {
      write();
      return text.data;
    },
  };
}

function timingOf(times, tokens, told) {
  const fact = (name, value) => el("span", {}, `${name} `, el("b", {}, value));
  const facts = [];
  if (times.first) facts.push(fact("TTFT", formatMs(times.first - times.asked)));
  if (times.first && tokens > 1) facts.push(fact("TPOT", formatMs((times.last - times.first) / (tokens - 1))));
  if (tokens > 0) facts.push(el("span", {}, plural(tokens, "token")));
  const route = told && routeOf({ prefill: told.prefill_worker, decode: told.decode_worker });
  if (route) facts.push(el("span", {}, route));
  if (told?.kv_bytes > 0) facts.push(el("span", {}, `${formatBytes(told.kv_bytes)} KV`));
  return el("p", { class: "timing" }, ...facts);
}

// One question to its answer's end. `times` says when it was asked, and when the first and last
// piece came.
async function converse(node, stop) {
  const times = { asked: performance.now() };
  const writer = makeWriter(node);
  let tokens = 0;
  let told;
  const slo = $("chat-class").value;
  try {
    const answer = await ask("/v1/chat/completions", chatKey(), {
      method: "POST",
      signal: stop.signal,
      headers: {
        "content-type": "application/json",
        "x-baton-timings": "1",
        ...(slo ? { "x-baton-slo-class": slo } : {}),
      },
      body: JSON.stringify({
        model: $("chat-model").value,
        messages: conversation.slice(-KEPT),
        max_tokens: Number($("chat-length").value),
        stream: true,
        stream_options: { include_usage: true },
      }),
    });
    if (!answer.ok) throw new Error(await errorOf(answer));
    await readEvents(answer, (event) => {
      if (event.error) throw new Error(event.error.message);
      const piece = event.choices?.[0]?.delta?.content;
      if (piece) {
        times.last = performance.now();
        times.first ??= times.last;
        writer.add(piece);
        ++tokens;
      }
      tokens = event.usage?.completion_tokens ?? tokens;
      told = event.baton ?? told;
    });
  } catch (problem) {
    if (problem.name !== "AbortError") {
      say("failed", problem.message);
    }
  }
  return { text: writer.end(), timing: timingOf(times, tokens, told) };
}

async function send() {
  const text = $("chat-text").value.trim();
  if (!text || running) return;
  $("chat-text").value = "";
  const mine = conversation; // Clear begins another
  mine.push({ role: "user", content: text });
  say("mine", text);
  running = new AbortController();
  showRunning();
  const node = say("theirs", "");
  const { text: answer, timing } = await converse(node, running);
  running = null;
  showRunning();
  if (answer) {
    mine.push({ role: "assistant", content: answer });
    node.after(timing);
  } else {
    mine.pop(); // it is asked again, not twice
    node.remove();
  }
  $("chat-log").scrollTop = $("chat-log").scrollHeight;
}

function showRunning() {
  setText($("chat-send"), running ? "Stop" : "Send");
  $("chat-send").classList.toggle("strong", !running);
}

function clearChat() {
  running?.abort();
  conversation = [];
  $("chat-log").replaceChildren();
  $("chat-clear").hidden = true;
  $("chat-text").focus();
}

async function listModels() {
  try {
    const answer = await ask("/v1/models", chatKey());
    if (!answer.ok) return;
    const models = (await answer.json()).data.map((model) => model.id);
    $("chat-model").replaceChildren(...models.map((name) => el("option", { value: name }, name)));
  } catch {
    // The router is not there: the status says so.
  }
}

// The default class goes without a name.
function listClasses(state) {
  const names = state.classes.map((each) => each.name);
  const select = $("chat-class");
  if (select.children.length === names.length + 1) return;
  select.replaceChildren(el("option", { value: "" }, "default class"), ...names.map((name) => el("option", { value: name }, name)));
  select.closest("label").hidden = names.length < 2;
}

function setUpChat() {
  $("chat-form").onsubmit = (event) => {
    event.preventDefault();
    if (running) running.abort();
    else send();
  };
  $("chat-text").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
    if (event.key === "Escape") running?.abort();
  };
  $("chat-clear").onclick = clearChat;
}
