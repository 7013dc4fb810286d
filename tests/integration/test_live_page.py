"""The live page of a real router, in Chromium without a window.

Pictures of it are left in the folder that BATON_TEST_PICTURES names, if it does.
"""

import itertools
import json
import os
import pathlib
import random
import threading
import time

import api
import browser
import harness
import pytest
import requests

ROUTER = {
    "slo_class": ["interactive: ttft=60s, tpot=60s", "batch: best-effort"],
    "default_slo_class": "interactive",
} | harness.TAKING_TURNS | harness.ALL_HANDED_OFF  # fmt: skip
WORKERS = {
    "device": "emulated",
    "profile": harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml",
    "kv_gib": 0.5,
    "chunk_tokens": 512,
}
PICTURES = os.environ.get("BATON_TEST_PICTURES")

pytestmark = pytest.mark.skipif(
    browser.BIN is None,
    reason="chromium is not installed (Debian's package chromium; scripts/install_deps.sh --ci)",
)


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def page(shared_browser):
    """A window of its own, in which no script has had anything to complain of in the end."""
    shared_browser.complaints.clear()
    shared_browser.look(1440, 900)
    yield shared_browser
    shared_browser.open("about:blank")
    assert shared_browser.complaints == []


@pytest.fixture(scope="module")
def cluster(start_shared_cluster, tiny):
    return start_shared_cluster(tiny, ROUTER, prefill=2, decode=2, mixed=1, **WORKERS)


@pytest.fixture
def load(cluster):
    """Clients that ask again and again."""
    stopped = threading.Event()

    def ask(client: int):
        draw = random.Random(client)
        for turn in itertools.count():
            if stopped.wait(0.1):
                return
            prompt = [draw.randrange(3, 300) for _ in range(draw.randrange(50, 900))]
            slo_class = {"x-baton-slo-class": "batch" if turn % 3 == 0 else "interactive"}
            body = {"prompt": prompt, "max_tokens": 30, "ignore_eos": True}
            api.post(cluster, "/v1/completions", body, headers=slo_class)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
    for thread in threads:
        thread.start()
    yield
    stopped.set()
    for thread in threads:
        thread.join()


def picture(page, name: str, tmp_path: pathlib.Path):
    folder = pathlib.Path(PICTURES) if PICTURES else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(folder / f"{name}.png")


def open_live(page, url: str):
    page.open(url + "/")
    page.wait("document.querySelector('#status').dataset.state === 'live'")


def test_it_shows_the_cluster_at_work(page, cluster, load, tmp_path):
    open_live(page, cluster.url)
    page.wait("document.querySelectorAll('.request').length >= 10")
    page.wait("document.querySelectorAll('.link.busy').length >= 2")
    workers = page.text("#cluster")
    for name in cluster.workers:
        assert name in workers
    assert "2 of 2 ready" in workers
    assert "prefill-0 → decode-" in page.text(".pairs")
    legend = page.text("#stages-legend")
    assert "prefill" in legend and "rest of the hand-over" in legend
    page.wait("document.querySelector('#attainment-legend').innerText.includes('100 %')")
    assert "interactive" in page.text("#attainment-legend")
    assert page.text(".figure .value") != ""
    for width, height in [(1440, 1000), (820, 1180), (360, 780)]:
        for dark in (False, True):
            page.look(width, height, dark)
            time.sleep(0.3)
            picture(page, f"{width}-{'dark' if dark else 'light'}", tmp_path)
            wide = page.run("document.documentElement.scrollWidth")
            assert wide <= width, f"it is {wide} wide on {width}"


def test_a_request_tells_its_stages_when_it_is_opened(page, cluster):
    api.complete(cluster, prompt=[5] * 300, max_tokens=4, ignore_eos=True)
    open_live(page, cluster.url)
    page.wait("!!document.querySelector('.request button')")
    page.run("document.querySelector('.request button').focus()")
    page.press("Enter")
    page.wait("!!document.querySelector('.request .more')")
    told = page.text(".request .more")
    assert "prefill" in told and "in all" in told and "interactive" in told
    assert page.run("document.querySelector('.request button').ariaExpanded") == "true"


def open_chat(page, url: str):
    open_live(page, url)
    page.wait("document.querySelector('#chat-model').value !== ''")


def ask(page, text: str):
    page.type("#chat-text", text)
    page.press("Enter")


def test_the_chat_answers_and_says_how_fast(page, cluster):
    open_chat(page, cluster.url)
    ask(page, "Which way?")
    page.wait("!!document.querySelector('.timing')")
    timing = page.text(".timing")
    assert "TTFT" in timing and "TPOT" in timing and "decode-" in timing
    assert page.text(".said.mine") == "Which way?"
    assert len(page.text(".said.theirs")) > 20
    page.run("document.querySelector('#chat-clear').click()")
    assert page.text("#chat-log") == ""


KEEP_BODIES = """
  const real = fetch;
  window.bodies = [];
  window.fetch = (path, options, ...more) => {
    if (options?.body) window.bodies.push(JSON.parse(options.body));
    return real(path, options, ...more);
  };
"""


def test_a_conversation_that_is_cleared_in_mid_answer_is_gone(page, cluster):
    script = page.call("Page.addScriptToEvaluateOnNewDocument", source=KEEP_BODIES)
    try:
        open_live(page, cluster.url)
        page.wait("document.querySelector('#chat-model').value !== ''")
        page.run("document.querySelector('#chat-length').value = '1024'")
        ask(page, "Tell me everything")
        page.wait("document.querySelector('.said.theirs')?.innerText.length > 0")
        page.run("document.querySelector('#chat-clear').click()")
        page.wait("document.querySelector('#chat-send').innerText === 'Send'")
        ask(page, "Hello")
        page.wait("window.bodies.length === 2")
        assert page.run("window.bodies[1].messages") == [{"role": "user", "content": "Hello"}]
        page.wait("!!document.querySelector('.timing')")
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_an_answer_can_be_stopped(page, cluster):
    open_chat(page, cluster.url)
    page.run("document.querySelector('#chat-length').value = '1024'")
    ask(page, "Tell me everything")
    page.wait("document.querySelector('.said.theirs')?.innerText.length > 0")
    assert page.text("#chat-send") == "Stop"
    page.press("Escape")
    page.wait("document.querySelector('#chat-send').innerText === 'Send'")
    page.wait("!!document.querySelector('.timing')")
    assert "1024 tokens" not in page.text(".timing")
    state = requests.get(cluster.url + "/debug/state", timeout=5)
    harness.wait_for(
        lambda: requests.get(cluster.url + "/debug/state", timeout=5).json()["in_flight"] == 0,
        5, "it runs no longer",
    )  # fmt: skip
    assert "Tell me" not in state.text


def test_a_model_that_is_refused_is_said_why(page, cluster):
    open_chat(page, cluster.url)
    page.run("document.querySelector('#chat-model').append(new Option('none', 'none', true, true))")
    ask(page, "Anybody?")
    page.wait("!!document.querySelector('.said.failed')")
    assert "none" in page.text(".said.failed")
    page.complaints.clear()  # Chromium notes each answer of 4xx


def test_the_keyboard_reaches_all(page, cluster):
    open_live(page, cluster.url)
    page.run("document.activeElement.blur()")
    seen = []
    for _ in range(60):
        page.press("Tab")
        seen.append(page.run("document.activeElement.id || document.activeElement.className"))
    assert seen[0] == "skip"
    for name in ["key-button", "theme-button", "chat-text", "chat-model", "chat-send"]:
        assert name in seen


CONTRAST = """
(() => {
  const parts = (color) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (color) => {
    const [r, g, b] = parts(color).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)" && color !== "transparent") return color;
    }
    return "white";
  };
  const low = [];
  for (const node of document.querySelectorAll("main *, header *")) {
    const text = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
    if (!text || !node.checkVisibility() || node.closest(".hidden, svg, select")) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort();
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) low.push(`${node.className || node.id || node.tagName} ${contrast}`);
  }
  return low;
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read(page, cluster, dark):
    page.look(1440, 900, dark)
    open_live(page, cluster.url)
    assert page.run(CONTRAST) == []


def test_the_switch_between_dark_and_light_is_remembered(page, cluster):
    background = "getComputedStyle(document.body).backgroundColor"
    page.look(1440, 900, dark=False)
    open_live(page, cluster.url)
    light = page.run(background)
    page.run("document.querySelector('#theme-button').click()")
    dark = page.run(background)
    assert dark != light
    open_live(page, cluster.url)
    assert page.run(background) == dark
    page.run("localStorage.clear()")
    page.look(1440, 900, dark=True)
    open_live(page, cluster.url)
    assert page.run(background) == dark


def with_state(page, change: str):
    """From the next page on, what the router says goes through this script first."""
    script = f"""
      const real = fetch;
      window.fetch = async (path, ...more) => {{
        const answer = await real(path, ...more);
        if (path !== "/debug/state") return answer;
        const state = await answer.json();
        {change};
        return new Response(JSON.stringify(state));
      }};
    """
    added = page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    return added["identifier"]


MANY = """
  const one = (i, role) => ({ ...state.workers[0], name: `${role}-${i}`, role, address: `a${i}`,
    free_blocks: 1000 - i, total_blocks: 1000, state: i === 77 ? "draining" : "ready" });
  state.workers = [...Array(128).keys()].flatMap((i) => [one(i, "prefill"), one(i, "decode")]);
  state.pools = ["prefill", "decode"].map((role) => ({ role, workers: 500, ready: 499, running: 9,
    waiting: 0, free_blocks: 1, total_blocks: 2 }));
  state.num_workers = 1000;
  state.pairs = [...Array(64).keys()].map((i) => ({ prefill: `prefill-${i}`, decode: `decode-${i}`,
    bytes_per_second: 1e9 / (i + 1), bytes: 1e12, hand_overs: 1e6, exposed_ms: 5 }));
  state.num_pairs = 4096
"""


def test_a_thousand_workers_are_folded(page, cluster, tmp_path):
    script = with_state(page, MANY)
    try:
        open_live(page, cluster.url)
        page.wait("document.querySelectorAll('.worker').length === 16")
        text = page.text("#cluster")
        assert text.count("and 492 more") == 2
        assert "draining" in text  # whoever is in trouble stays in sight
        assert "and 4090 pairs more" in text
        picture(page, "thousand", tmp_path)
        page.run("document.querySelector('.more-button').click()")
        page.wait("document.querySelectorAll('.worker').length === 136")
        assert "372 more are not listed" in page.text("#cluster")
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


NAMELESS = """
  const { address, ...one } = { ...state.workers[0], name: "", role: "unknown", state: "connecting" };
  state.workers = [one, one, one];
  state.pools = [{ role: "unknown", workers: 3, ready: 0, running: 0, waiting: 0,
    free_blocks: 0, total_blocks: 0 }];
  window.polls = (window.polls ?? 0) + 1
"""


def test_workers_that_nothing_tells_apart_are_as_many_as_they_are(page, cluster):
    script = with_state(page, NAMELESS)
    try:
        open_live(page, cluster.url)
        page.wait("window.polls >= 4")
        assert page.run("document.querySelectorAll('.worker').length") == 3
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


RESTARTED = """
  window.polls = (window.polls ?? 0) + 1;
  const stages = window.polls < 3 ? { parse: 6, prefill: 4 } : { reserve: 10 };
  state.requests = [{ ...state.requests[0], number: 1, took_ms: window.polls < 3 ? 20 : 21,
    to_first: stages, hand_over: {} }]
"""


def test_bars_are_those_of_their_requests_when_a_router_counts_anew(page, cluster):
    api.complete(cluster, prompt=[5] * 300, max_tokens=4, ignore_eos=True)
    script = with_state(page, RESTARTED)
    try:
        open_live(page, cluster.url)
        page.wait("window.polls >= 4")
        titles = page.run("[...document.querySelectorAll('.stages i')].map((i) => i.title)")
        assert titles == ["reserve 10.0 ms"]
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_names_are_text_whatever_they_are(page, cluster):
    name = "<img src=x onerror=alert(1)>"
    script = with_state(
        page,
        f"state.workers[0].name = {json.dumps(name)}; state.classes[0].name = {json.dumps(name)};"
        f"state.refusals = [{{reason: {json.dumps(name)}, steps: [1, 1]}}]",
    )
    try:
        open_live(page, cluster.url)
        assert name in page.text("#cluster")
        assert name in page.text("#refusals")
        assert page.run("document.querySelectorAll('main img').length") == 0
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_a_worker_that_dies_and_a_router_that_ends(page, start_cluster, tiny, tmp_path):
    cluster = start_cluster(tiny, ROUTER, prefill=1, decode=2, **WORKERS)
    open_live(page, cluster.url)
    cluster.kill_worker("decode-1")
    page.wait("!!document.querySelector('.worker[data-state=lost]')")
    assert "decode-1" in page.text(".worker[data-state=lost]")
    picture(page, "lost", tmp_path)
    cluster.router.stop()
    page.wait("document.querySelector('#status').innerText === 'No answer'")
    page.complaints.clear()


def enter_keys(page, view: str, chat: str = ""):
    page.wait("document.querySelector('#key-dialog').open")
    page.run("document.querySelectorAll('dialog input').forEach((input) => (input.value = ''))")
    page.type("#view-key", view)
    page.type("#chat-key", chat)
    page.press("Enter")


def test_with_a_key_it_shows_nothing_until_it_has_one(page, start_cluster, tiny, tmp_path):
    harness.write_private(tmp_path / "keys", "open-sesame-123\n")
    options = ROUTER | {"api_key_file": tmp_path / "keys"}
    cluster = start_cluster(tiny, options, mixed=1, **WORKERS)
    page.open(cluster.url + "/")
    page.wait("document.querySelector('#status').innerText === 'Locked'")
    assert "mixed-0" not in page.text()
    before = cluster.metrics().sum("baton_router_refused_total", reason="unauthorized")
    time.sleep(2.5)
    after = cluster.metrics().sum("baton_router_refused_total", reason="unauthorized")
    assert after == before  # it does not knock again and again
    # Nor when somebody comes back from where the key is, whose words are left alone.
    page.type("#view-key", "half of it")
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    time.sleep(1)
    assert page.run("document.querySelector('#view-key').value") == "half of it"
    assert cluster.metrics().sum("baton_router_refused_total", reason="unauthorized") == before
    enter_keys(page, "wrong")
    page.wait("document.querySelector('#notice').innerText.includes('does not open')")
    page.run("document.querySelector('#key-button').click()")
    enter_keys(page, "open-sesame-123")
    page.wait("document.querySelector('#status').dataset.state === 'live'")
    page.wait("document.querySelector('#cluster').innerText.includes('mixed-0')")
    page.wait("document.querySelector('#chat-model').value !== ''")
    ask(page, "Hello")
    page.wait("!!document.querySelector('.timing')")
    assert page.run("Object.values(localStorage).join()").find("sesame") < 0
    open_live(page, cluster.url)  # the tab remembers
    assert "sesame" not in page.run("document.cookie + location.href")
    page.run("sessionStorage.clear()")
    page.complaints.clear()


LONG = """
  const real = fetch;
  window.fetch = (path, ...more) => {
    if (path !== "/v1/chat/completions") return real(path, ...more);
    const event = (fields) => new TextEncoder().encode(`data: ${JSON.stringify(fields)}\\n\\n`);
    let left = 20000;
    return Promise.resolve(new Response(new ReadableStream({
      pull(stream) {
        for (let i = 0; i < 200 && left > 0; ++i, --left) {
          stream.enqueue(event({ choices: [{ delta: { content: `word${left} ` } }] }));
        }
        if (left > 0) return;
        stream.enqueue(event({ choices: [], usage: { completion_tokens: 20000 } }));
        stream.close();
      },
    })));
  };
"""


def test_a_long_answer_is_there_to_its_end(page, cluster):
    added = page.call("Page.addScriptToEvaluateOnNewDocument", source=LONG)
    try:
        open_chat(page, cluster.url)
        ask(page, "At length, please")
        page.wait("!!document.querySelector('.timing')", 30)
        text = page.text(".said.theirs")
        assert text.startswith("word20000 ") and text.rstrip().endswith("word1")
        assert "20.0 k tokens" in page.text(".timing")
        assert page.run("document.documentElement.scrollHeight") < 5000  # it scrolls by itself
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])


def test_with_tenants_an_admin_sees_and_a_tenant_chats(page, start_cluster, tiny, tmp_path):
    harness.write_private(tmp_path / "tenants.yaml", "tenants: {acme: {keys: [key-of-acme-1]}}\n")
    harness.write_private(tmp_path / "admin", "an-admin-key\n")
    options = ROUTER | {
        "tenants_file": tmp_path / "tenants.yaml",
        "admin_key_file": tmp_path / "admin",
    }
    cluster = start_cluster(tiny, options, mixed=1, **WORKERS)
    page.open(cluster.url + "/")
    enter_keys(page, "key-of-acme-1")
    page.wait("document.querySelector('#notice').innerText.includes('must be an admin')")
    assert "mixed-0" not in page.text()
    page.run("document.querySelector('#key-button').click()")
    enter_keys(page, "an-admin-key", "key-of-acme-1")
    page.wait("document.querySelector('#status').dataset.state === 'live'")
    page.wait("document.querySelector('#chat-model').value !== ''")
    ask(page, "Hello")
    page.wait("!!document.querySelector('.timing')")
    page.wait("!!document.querySelector('.request button')")
    page.run("document.querySelector('.request button').click()")
    assert "tenant acme" in page.text(".request .more")
    page.run("sessionStorage.clear()")
    page.complaints.clear()
