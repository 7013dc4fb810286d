"""What a worker takes of its host's memory when it starts, and that it leaves nothing there."""

import pathlib
import signal
import subprocess

import harness
import pytest

CACHE_GIB = 0.5


def run_worker(model, *args, **popen):
    return subprocess.Popen(
        [harness.BIN, "worker", "--model", model, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def is_allocating(pid: int) -> bool:
    """Its cache is mapped, or a file for it has a name."""
    if harness.shared_memory_of([pid]):
        return True
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        begin, end = (int(word, 16) for word in line.split()[0].split("-"))
        if end - begin > CACHE_GIB * 2**29 and "/SYSV" in line:
            return True
    return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_while_it_allocates_its_cache_leaves_nothing(tiny, sent):
    worker = run_worker(tiny, "--role", "prefill", "--kv-gib", str(CACHE_GIB))
    harness.wait_for(lambda: is_allocating(worker.pid), 30, "it allocates")
    files = harness.shared_memory_of([worker.pid])
    worker.send_signal(sent)
    worker.communicate(timeout=30 * harness.PATIENCE)
    left = [name for name in files if pathlib.Path(name).exists()]
    for name in left:
        pathlib.Path(name).unlink()  # or the failure would take memory until the next boot
    assert left == []
    assert harness.sysv_segments_of({worker.pid}) == []
