"""kill -9 of a worker, at every stage of a request: the others go on, and nothing hangs."""

import concurrent.futures
import os
import signal
import threading
import time

import api
import harness
import pytest
import sse

PROMPT = "the baton goes from hand to hand "
LONG = PROMPT * 60  # some hundreds of milliseconds of prefill, in many chunks
STREAMS = 6
# Of those who take a crash over, the sanitizers are told not to, and UCX is told to try.
UCX_ALONE_REPORTS = {"UCX_HANDLE_ERRORS": "bt"} | {
    name: f"{os.environ.get(name, '')}:handle_segv=0" for name in ["ASAN_OPTIONS", "TSAN_OPTIONS"]
}


class Stream(threading.Thread):
    """One streamed completion, read in the background."""

    def __init__(self, cluster, prompt: str, **fields):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.body = {"prompt": prompt, "stream": True, "temperature": 0, "ignore_eos": True}
        self.body |= fields
        self.events: list[dict] = []
        self.failure: Exception | None = None
        self.refusal: dict | None = None
        self.start()

    def run(self):
        try:
            answer = api.post(self.cluster, "/v1/completions", self.body, stream=True)
            if answer.status_code != 200:
                self.refusal = answer.json()["error"]
                return
            parser = sse.SseParser()
            for chunk in answer.iter_content(None):
                self.events += [
                    sse.json.loads(data) for data in parser.feed(chunk) if data != "[DONE]"
                ]
            parser.finish()
            assert parser.done or self.error, "neither [DONE] nor an error"
        except Exception as failure:  # reported by the main thread
            self.failure = failure

    @property
    def error(self) -> dict | None:
        """The one clear error that ended it, if any did."""
        if self.refusal:
            return self.refusal
        errors = [event["error"] for event in self.events if "error" in event]
        assert len(errors) <= 1
        assert not errors or "error" in self.events[-1]
        return errors[0] if errors else None

    @property
    def text(self) -> str:
        return sse.text_of(self.events)

    def end(self) -> "Stream":
        self.join(60 * harness.PATIENCE)
        assert not self.is_alive(), "the stream hangs"
        assert self.failure is None, self.failure
        return self


def reference(cluster, bodies: list[dict]) -> list[str]:
    """Their texts. What comes next is placed on workers that the router knows to be idle."""
    streams = [Stream(cluster, **body) for body in bodies]
    texts = [stream.end().text for stream in streams]
    assert all(stream.error is None for stream in streams)
    harness.wait_for(lambda: looks_idle(cluster), 10, "the router has heard that all are idle")
    return texts


def looks_idle(cluster) -> bool:
    """Workers tell of their load every 50 ms: until then, what has ended counts as running."""
    router = cluster.metrics()
    names = ["vllm:num_requests_running", "vllm:kv_cache_usage_perc"]
    return all(router.has(name) and router.sum(name) == 0 for name in names)


def check(streams: list[Stream], expected: list[str]) -> int:
    """Each has its whole text, or a part of it and one error; returns how many were whole."""
    whole = 0
    for stream, text in zip(streams, expected):
        stream.end()
        if error := stream.error:
            assert set(error) == {"message", "type", "param", "code"}
            assert error["message"]
            assert text.startswith(stream.text)
        else:
            assert stream.text == text, "a token was lost, doubled or changed"
            whole += 1
    return whole


def running(cluster, worker: str) -> float:
    return cluster.metrics(worker).sum("vllm:num_requests_running")


def bodies(prompt: str, max_tokens: int) -> list[dict]:
    return [{"prompt": f"{i} {prompt}", "max_tokens": max_tokens} for i in range(STREAMS)]


@pytest.fixture
def cluster(start_cluster, medium):
    return start_cluster(medium, prefill=2, decode=2, chunk_tokens=32, prefix_cache=False)


def serves_again(cluster, name: str):
    """The worker comes back at its address; nobody else is started again."""
    started = time.monotonic()
    cluster.start_worker(name).wait_ready()

    def used() -> bool:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: api.complete(cluster, f"{i}", max_tokens=3), range(4)))
        metrics = cluster.metrics(name)
        return (
            metrics.sum("vllm:generation_tokens_total") + metrics.sum("vllm:prompt_tokens_total")
            > 0
        )

    harness.wait_for(used, 10, f"{name} serves again")
    return time.monotonic() - started


def test_killed_in_decode(cluster):
    requests = bodies(PROMPT, 1000)  # so many that none ends before its worker does
    expected = reference(cluster, requests)
    streams = [Stream(cluster, **body) for body in requests]
    harness.wait_for(lambda: all(len(s.events) > 20 for s in streams), 20, "all are decoding")
    affected = running(cluster, "decode-0")
    assert 0 < affected < STREAMS

    cluster.kill_worker("decode-0")

    # The others go on, and the dead worker's are resumed behind what was delivered.
    assert check(streams, expected) == STREAMS
    assert api.complete(cluster, "meanwhile", max_tokens=3)
    serves_again(cluster, "decode-0")


def test_killed_in_prefill(cluster):
    requests = bodies(LONG, 40)
    expected = reference(cluster, requests)
    streams = [Stream(cluster, **body) for body in requests]
    harness.wait_for(lambda: running(cluster, "prefill-0") > 0, 20, "prefill-0 computes")

    cluster.kill_worker("prefill-0")

    # No token had left, so every one is computed again.
    assert check(streams, expected) == STREAMS
    serves_again(cluster, "prefill-0")


@pytest.mark.parametrize("victim", ["prefill-0", "decode-0"])
def test_killed_in_transfer(cluster, victim):
    """Chunks cross while later ones are computed: bytes are moving, and no first token is out."""
    requests = bodies(LONG * 2, 40)
    expected = reference(cluster, requests)
    once = prompts_computed(cluster)
    before = announces(cluster)
    streams = [Stream(cluster, **body) for body in requests]
    harness.wait_for(lambda: announces(cluster) > before, 20, "chunks are announced")

    cluster.kill_worker(victim)

    assert check(streams, expected) == STREAMS
    if victim == "decode-0":
        # What it did not read yet, another one reads. Prompts are computed a second time only where
        # it had all of one and had sent tokens.
        router = cluster.metrics()
        resumes = router.sum("baton_router_resumes_total")
        assert resumes < STREAMS
        twice = prompts_computed(cluster) - 2 * once
        assert twice <= resumes * (once / STREAMS + 40)
        assert router.sum("baton_router_retargets_total") > 0
    assert api.complete(cluster, "meanwhile", max_tokens=3)
    serves_again(cluster, victim)


def announces(cluster) -> float:
    """Messages that decode-0 has heard of chunks to be read."""
    return cluster.metrics("decode-0").sum("baton_kv_messages_received_total", kind="announce")


def prompts_computed(cluster) -> float:
    """Tokens of prompts that prefill workers have computed."""
    return sum(
        cluster.metrics(name).sum("vllm:prompt_tokens_total") for name in ["prefill-0", "prefill-1"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["prefill-0", "decode-0"])
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_stopped_for_longer_than_the_lease(start_cluster, medium, transport, victim):
    """SIGSTOP in mid-transfer: it holds leases and memory, and says nothing. What it was at goes on
    elsewhere; when it wakes, nobody believes what it has to say of the past."""
    cluster = start_cluster(
        medium, prefill=2, decode=2, chunk_tokens=32, prefix_cache=False, transport=transport
    )
    requests = bodies(LONG, 40)
    expected = reference(cluster, requests)
    before = cluster.metrics("decode-0").sum("baton_kv_read_bytes_total")
    streams = [Stream(cluster, **body) for body in requests]
    harness.wait_for(
        lambda: cluster.metrics("decode-0").sum("baton_kv_read_bytes_total") > before,
        20,
        "bytes cross",
    )
    stopped = cluster.workers[victim].process.popen
    stopped.send_signal(signal.SIGSTOP)
    try:
        assert check(streams, expected) == STREAMS
        time.sleep(6)  # leases are of 5 s
    finally:
        stopped.send_signal(signal.SIGCONT)
    harness.wait_for(lambda: blocks_held(cluster) == 0, 10, "no worker holds a block")
    again = [Stream(cluster, **body) for body in requests]
    assert check(again, expected) == STREAMS


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_killed_again_and_again(start_cluster, medium, transport):
    """Every 400 ms another worker dies at whatever it was doing, and comes back."""
    cluster = start_cluster(
        medium, prefill=2, decode=2, chunk_tokens=32, prefix_cache=False, transport=transport
    )
    requests = bodies(PROMPT * 10, 60)
    expected = reference(cluster, requests)
    whole = total = 0
    for victim in ["decode-0", "prefill-1", "decode-1", "prefill-0"] * 2:
        streams = [Stream(cluster, **body) for body in requests]
        time.sleep(0.4)
        cluster.kill_worker(victim)
        cluster.start_worker(victim).wait_ready()
        whole += check(streams, expected)
        total += STREAMS
    assert whole > total / 2
    harness.wait_for(lambda: blocks_held(cluster) == 0, 5, "no worker holds a block")


def blocks_held(cluster) -> float:
    scrapes = [cluster.metrics(worker) for worker in cluster.workers]
    return sum(
        scrape.sum("baton_kv_blocks", state=state)
        for scrape in scrapes
        for state in ["active", "quarantined"]
    )


def test_the_only_decode_worker_killed(start_cluster, medium):
    """With nobody left to decode, a request waits for the worker or fails with one clear error."""
    cluster = start_cluster(medium, prefill=1, decode=1)
    stream = Stream(cluster, PROMPT, max_tokens=2000)
    harness.wait_for(lambda: len(stream.events) > 10, 20, "it decodes")
    cluster.kill_worker("decode-0")
    late = Stream(cluster, PROMPT, max_tokens=5)
    time.sleep(0.5)
    serves_again(cluster, "decode-0")
    for one in [stream, late]:
        one.end()
        assert one.error is None or one.error["message"]


def test_a_worker_may_start_after_the_router(start_cluster, tiny):
    cluster = start_cluster(tiny, prefill=1, decode=1)
    for name in ["prefill-0", "decode-0"]:
        cluster.kill_worker(name)
    harness.wait_for(lambda: not cluster.is_ready(), 10, "not ready without workers")
    for name in ["decode-0", "prefill-0"]:
        cluster.start_worker(name).wait_ready()
    cluster.wait_ready()
    assert api.complete(cluster, "hello again", max_tokens=3)


@pytest.mark.parametrize("role", ["mixed", "prefill"])
def test_a_crash_is_left_to_the_system(start_cluster, tiny, role):
    """UCX would print a report of its own."""
    others = {} if role == "mixed" else {"decode": 1}
    cluster = start_cluster(tiny, env=UCX_ALONE_REPORTS, **{role: 1}, **others)
    process = cluster.workers[f"{role}-0"].process
    process.popen.send_signal(signal.SIGSEGV)
    assert process.popen.wait(20 * harness.PATIENCE) == -signal.SIGSEGV
    assert "Caught signal" not in process.log.read_text()
    cluster.start_worker(f"{role}-0").wait_ready()
    assert api.complete(cluster, "back again", max_tokens=2)["choices"]
