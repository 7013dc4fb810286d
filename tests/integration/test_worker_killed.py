"""kill -9 of a worker, at every stage of a request: the others go on, and nothing hangs."""

import concurrent.futures
import os
import signal
import time

import api
import harness
import pytest
from streams import Stream, blocks_held, check, reference

PROMPT = "the baton goes from hand to hand "
LONG = PROMPT * 60  # some hundreds of milliseconds of prefill, in many chunks
STREAMS = 6
# Of those who take a crash over, the sanitizers are told not to, and UCX is told to try.
UCX_ALONE_REPORTS = {"UCX_HANDLE_ERRORS": "bt"} | {
    name: f"{os.environ.get(name, '')}:handle_segv=0" for name in ["ASAN_OPTIONS", "TSAN_OPTIONS"]
}


def running(cluster, worker: str) -> float:
    return cluster.metrics(worker).sum("vllm:num_requests_running")


def bodies(prompt: str, max_tokens: int) -> list[dict]:
    return [{"prompt": f"{i} {prompt}", "max_tokens": max_tokens} for i in range(STREAMS)]


@pytest.fixture
def cluster(start_cluster, medium):
    return start_cluster(
        medium, harness.TAKING_TURNS, prefill=2, decode=2, chunk_tokens=32, prefix_cache=False
    )


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
        medium,
        harness.TAKING_TURNS,
        prefill=2,
        decode=2,
        chunk_tokens=32,
        prefix_cache=False,
        transport=transport,
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
