// Asks for the cluster's state once a second while somebody looks, and shows it.

const POLL_MS = 1000;
const MOST_PAUSE_MS = 10000;
let lastState = null;
let pause = POLL_MS;
let timer = 0;
let hasModels = false;
let isLocked = false; // with the keys there are

function setStatus(state, text) {
  setText($("status"), text);
  $("status").dataset.state = state;
}

function setNotice(text) {
  setText($("notice"), text);
  $("notice").hidden = !text;
}

function show(state) {
  lastState = state;
  const names = [...new Set(state.workers.map((w) => w.model).filter(Boolean))].sort(byName);
  const models = names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
  setText($("subtitle"), [models, `${state.version}, up ${formatAgo(state.up_s)}`].filter(Boolean).join(" · "));
  showFigures(state);
  showCharts(state);
  showCluster(state);
  showRequests(state);
  listClasses(state);
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const answer = await ask("/debug/state", viewKey(), { signal: AbortSignal.timeout(8000) });
    if (answer.status === 401 || answer.status === 404) return await refused(answer);
    if (!answer.ok) throw new Error(await errorOf(answer));
    show(await answer.json());
    setStatus("live", "Live");
    setNotice("");
    pause = POLL_MS;
    if (!hasModels) {
      hasModels = true;
      await listModels();
    }
  } catch (problem) {
    setStatus("lost", problem.name === "TypeError" || problem.name === "TimeoutError" ? "No answer" : problem.message);
    pause = Math.min(2 * pause, MOST_PAUSE_MS);
  }
  timer = setTimeout(poll, pause);
}

// It is not asked again with a key that will not do: each such question counts as a refusal.
async function refused(answer) {
  isLocked = true;
  setStatus("wait", "Locked");
  if (chatKey()) await listModels();
  if (answer.status === 404) {
    setNotice("With tenants only an admin's key opens this page, and this router has none (--admin-key-file). The chat takes a tenant's key.");
  } else if (viewKey()) {
    setNotice("This key does not open the page. With tenants it must be an admin's; the chat takes a tenant's.");
  } else {
    setNotice("This router wants a key.");
    showKeys();
  }
}

setUpTheme();
setUpCluster();
setUpRequests();
setUpChat();
const showKeys = setUpKeys(() => {
  hasModels = isLocked = false;
  poll();
});
document.addEventListener("visibilitychange", () => isLocked || poll());
new ResizeObserver(() => lastState && showCharts(lastState)).observe($("attainment"));
poll();
