"""What a worker takes of its host's memory when it starts, and that it leaves nothing there."""

import pathlib
import re
import resource
import signal
import subprocess

import harness
import pytest

CACHE_GIB = 0.5
TOO_MUCH = "100000"  # GiB


# With --kv-from device the cache is no memory of the host's.
ON_HOST = pytest.mark.skipif(harness.READ_ON_DEVICE, reason="the cache is the GPU's memory alone")


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


@ON_HOST
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


def no_large_files():
    """If the worker tried all the same, it would fill this machine."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))


@pytest.mark.parametrize(
    "args",
    [["--role", "mixed"], ["--role", "prefill"], ["--role", "decode", "--transport", "tcp"]],
    ids=["mixed", "shm", "tcp"],
)
def test_a_cache_without_room_is_one_sentence(tiny, args):
    worker = run_worker(tiny, *args, "--kv-gib", TOO_MUCH, "--log-level", "error",
                        preexec_fn=no_large_files)  # fmt: skip
    _, err = worker.communicate(timeout=30 * harness.PATIENCE)
    assert worker.returncode == 1, err
    of_host = r" takes \d+\.\d GiB of memory, and this (machine|cgroup) has \d+\.\d GiB left"
    of_gpu = r": \d+\.\d GiB are wanted of a GPU that has \d+\.\d GiB left"
    sentence = rf"baton worker: the KV cache \(kv_gib\)({of_host}|{of_gpu})\n"
    assert re.fullmatch(sentence, err), err


# What a shell of its own IPC namespace is to run with so little shared memory for one segment.
LIMITED = 'echo "$1" > /proc/sys/kernel/shmmax && shift && exec "$@"'


@ON_HOST
@pytest.mark.parametrize("most", [4096, 8 << 20], ids=["no queues", "no cache"])
def test_where_the_kernel_gives_no_segment_a_file_is_shared(tiny, most):
    limited = [
        "unshare",
        "--user",
        "--map-root-user",
        "--ipc",
        "sh",
        "-c",
        LIMITED,
        "sh",
        str(most),
    ]
    if subprocess.run([*limited, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no namespaces for us here")
    up = [harness.BIN, "up", "--model", tiny, "--port", "0", "--kv-gib", "0.05",
          "--transport", "shm", "--log-level", "info", "--once", "hello"]  # fmt: skip
    run = subprocess.run([*limited, *up], capture_output=True, text=True,
                         timeout=60 * harness.PATIENCE)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert run.stderr.count("KV cache memory: 51 MiB, posix") == 1, run.stderr
    assert "reads travel over posix" in run.stderr
