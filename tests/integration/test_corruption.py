"""KV that changes between its announce and its reading, in real processes."""

import mmap
import pathlib
import re
import signal

import harness
import pytest
from streams import Stream, blocks_held, check, reference

CACHE_GIB = 0.05
# So long that it is still being computed when its reader has stopped.
PROMPT = "the baton goes from hand to hand " * int(250 / harness.PATIENCE)
MISMATCH = re.compile(r"digest (\w{16}) announced, (\w{16}) read; (reading again|giving up)")


def cache_of(pid: int) -> tuple[int, int]:
    """Where a worker's KV cache begins, and its size. Those of its peers are mapped, too."""
    own = harness.sysv_segments_made_by({pid})
    found = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, access, _, _, inode, *_ = line.split(maxsplit=5)
        begin, end = (int(word, 16) for word in addresses.split("-"))
        if access.startswith("rw") and inode in {"0", *own}:
            found.append((end - begin, begin))
    size, begin = min(found, key=lambda mapping: abs(mapping[0] - CACHE_GIB * 2**30))
    assert abs(size / 2**30 - CACHE_GIB) < CACHE_GIB / 10, found
    return begin, size


def flip_a_bit_of_each(pid: int, begin: int, size: int, step: int):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(begin)
        cache = bytearray(memory.read(size))
        assert len(cache) == size
        for at in range(2 * mmap.PAGESIZE, size, step):  # what comes first may be malloc's
            cache[at] ^= 0x10
        memory.seek(begin)
        assert memory.write(cache) == size


def sent(cluster, worker: str, kind: str) -> float:
    return cluster.metrics(worker).sum("baton_kv_messages_sent_total", kind=kind)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_corrupted_blocks_are_not_decoded_from(start_cluster, medium, transport):
    cluster = start_cluster(
        medium,
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
    stream = Stream(cluster, **body)
    # The reader stops when it has reserved; what is computed meanwhile is changed; it goes on.
    harness.wait_for(lambda: sent(cluster, "decode-0", "credit") > credits, 20, "a credit")
    decode.popen.send_signal(signal.SIGSTOP)
    try:
        harness.wait_for(
            lambda: sent(cluster, "prefill-0", "commit") > commits, 3, "all is computed"
        )
        flip_a_bit_of_each(prefill.pid, *cache_of(prefill.pid), step=512)
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
