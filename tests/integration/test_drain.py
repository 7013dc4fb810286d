"""A worker that is told to end: what runs there goes on elsewhere, and it need not be waited for."""

import signal
import time

import harness
import pytest
from streams import Stream, reference

TOKENS = 1500  # seconds of decoding


def running(cluster, name: str) -> float:
    return cluster.metrics(name).sum("vllm:num_requests_running")


@pytest.mark.parametrize("pools", [{"prefill": 1, "decode": 2}, {"mixed": 2}])
def test_streams_move_from_a_draining_worker(start_cluster, medium, pools):
    cluster = start_cluster(medium, max_context=2048, kv_gib=0.1, drain_seconds=60, **pools)
    bodies = [
        {"prompt": f"{i} runs with the baton", "max_tokens": TOKENS, "temperature": 0}
        for i in range(4)
    ]
    expected = reference(cluster, bodies)
    streams = [Stream(cluster, **body) for body in bodies]
    harness.wait_for(lambda: all(len(stream.events) > 5 for stream in streams), 20, "all run")
    role = "decode" if "decode" in pools else "mixed"
    leaving = max((f"{role}-0", f"{role}-1"), key=lambda name: running(cluster, name))
    assert running(cluster, leaving) > 0
    worker = cluster.workers[leaving].process
    told = time.monotonic()
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.popen.wait(10 * harness.PATIENCE) == 0
    took = time.monotonic() - told
    assert any(stream.is_alive() for stream in streams), f"it waited for its streams: {took:.1f} s"
    assert [stream.end().text for stream in streams] == expected
    assert [stream.error for stream in streams] == [None] * len(streams)
    assert cluster.metrics().sum("baton_router_resumes_total") > 0
