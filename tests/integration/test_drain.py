"""A worker that is told to end: what runs there goes on elsewhere, and it need not be waited for."""

import signal

import harness
import pytest
from streams import Stream, reference

TOKENS = 1500  # seconds of decoding on a CPU


@pytest.mark.parametrize("pools", [{"prefill": 1, "decode": 2}, {"mixed": 2}])
def test_streams_move_from_a_draining_worker(start_cluster, medium, pools):
    cluster = start_cluster(
        medium, harness.TAKING_TURNS, max_context=2048, kv_gib=0.1, drain_seconds=60, **pools
    )
    bodies = [
        {"prompt": f"{i} runs with the baton", "max_tokens": TOKENS, "temperature": 0}
        for i in range(4)
    ]
    expected = reference(cluster, bodies)
    streams = [Stream(cluster, **body) for body in bodies]
    harness.wait_for(lambda: all(len(stream.events) > 5 for stream in streams), 20, "all run")
    role = "decode" if "decode" in pools else "mixed"
    both = [cluster.workers[f"{role}-{i}"].process for i in range(2)]
    # None goes on until one of them is told, however fast they are.
    for worker in both:
        worker.popen.send_signal(signal.SIGSTOP)
    both[0].popen.send_signal(signal.SIGTERM)
    for worker in both:
        worker.popen.send_signal(signal.SIGCONT)
    assert both[0].popen.wait(10 * harness.PATIENCE) == 0
    assert [stream.end().text for stream in streams] == expected
    assert [stream.error for stream in streams] == [None] * len(streams)
    # Each of its two went on elsewhere: it waited for none.
    assert cluster.metrics().sum("baton_router_resumes_total") == 2
