"""KV that changes between its announce and its reading, in real processes."""

import re
import signal

import harness
import kv_memory
import pytest
from streams import Stream, blocks_held, check, reference

CACHE_GIB = 0.05
PROMPT = "the baton goes from hand to hand " * 40  # many chunks
MISMATCH = re.compile(r"digest (\w{16}) announced, (\w{16}) read; (reading again|giving up)")


def sent(cluster, worker: str, kind: str) -> float:
    return cluster.metrics(worker).sum("baton_kv_messages_sent_total", kind=kind)


@pytest.mark.skipif(
    harness.READ_ON_DEVICE,
    reason="a GPU's memory cannot be changed from outside; gpu_process_test.cc does it from inside",
)
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_corrupted_blocks_are_not_decoded_from(start_cluster, medium, transport):
    cluster = start_cluster(
        medium,
        harness.ALL_HANDED_OFF,
        prefill=1,
        decode=1,
        chunk_tokens=32,
        kv_gib=CACHE_GIB,
        prefix_cache=False,
        transport=transport,
    )
    body = {"prompt": PROMPT, "max_tokens": 40}
    expected = reference(cluster, [body])
    prefill, decode = (cluster.workers[name].process for name in ["prefill-0", "decode-0"])
    credits, commits = sent(cluster, "decode-0", "credit"), sent(cluster, "prefill-0", "commit")
    # Nothing is computed before the reader has reserved and stopped, however fast prefill is; what
    # is computed then is changed; the reader goes on.
    prefill.popen.send_signal(signal.SIGSTOP)
    stream = Stream(cluster, **body)
    try:
        harness.wait_for(lambda: sent(cluster, "decode-0", "credit") > credits, 20, "a credit")
        decode.popen.send_signal(signal.SIGSTOP)
    finally:
        prefill.popen.send_signal(signal.SIGCONT)
    try:
        harness.wait_for(
            lambda: sent(cluster, "prefill-0", "commit") > commits, 3, "all is computed"
        )
        kv_memory.flip_a_bit_of_each(
            prefill.pid, *kv_memory.cache_of(prefill.pid, CACHE_GIB * 2**30), step=512
        )
    finally:
        decode.popen.send_signal(signal.SIGCONT)
    assert check([stream], expected) == 1

    mismatches = MISMATCH.findall(decode.log.read_text())
    assert {"reading again", "giving up"} == {end for _, _, end in mismatches}
    assert all(announced != read for announced, read, _ in mismatches)
    counted = cluster.metrics("decode-0").sum("baton_kv_digest_mismatches_total")
    assert counted == len(mismatches)
    harness.wait_for(lambda: blocks_held(cluster) == 0, 10, "no worker holds a block")
    assert check([Stream(cluster, **body)], expected) == 1
    assert cluster.metrics("decode-0").sum("baton_kv_digest_mismatches_total") == counted
