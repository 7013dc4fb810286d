"""A worker's KV cache, seen and changed from outside."""

import mmap
import pathlib

import harness


def cache_of(pid: int, expected: float) -> tuple[int, int]:
    """Where a worker's KV cache begins, and its size, which is about `expected` bytes. Those of its
    peers are mapped, too."""
    own = harness.sysv_segments_made_by({pid})
    found = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, access, _, _, inode, *_ = line.split(maxsplit=5)
        begin, end = (int(word, 16) for word in addresses.split("-"))
        if access.startswith("rw") and inode in {"0", *own}:
            found.append((end - begin, begin))
    size, begin = min(found, key=lambda mapping: abs(mapping[0] - expected))
    assert abs(size - expected) < expected / 10, found
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
