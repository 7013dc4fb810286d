"""A thousand clients that ask for long streams and read nothing, or next to nothing."""

import json
import pathlib
import resource
import selectors
import socket
import statistics
import time

import harness
import held
import pytest
import yaml

STALLED = 1000
SLOW = 50  # of them read a few bytes a second
READERS = 8
STEP = 0.04
OPTIONS = {"device": "emulated", "kv_gib": 400, "block_tokens": 64, "max_sequences": 1200}
ROUTER = {"max_connections": 1200, "max_waiting": 1200} | harness.ALL_HANDED_OFF
TOKENS = 200  # of one who reads, again and again
ENDLESS = 3000  # of one who does not
RECEIVE_BUFFER = 2048
KEPT_MIB = 128  # of the router's memory, by its allocator, when all is over

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 * harness.PATIENCE)]


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * STALLED:
        pytest.skip(f"{4 * STALLED} open files are needed, ulimit -Hn is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * STALLED), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def profile(tmp_path):
    """A step takes as long for a thousand as for one: what slows a stream is not the device."""
    profile = yaml.safe_load((harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml").read_text())
    profile["step"] = {name: 0 for name in profile["step"]} | {"fixed_us": STEP * 1e6}
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def memory_mib(process: harness.Process) -> float:
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def ask(cluster, tokens: int, receive_buffer: int | None = None, **fields) -> socket.socket:
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(30 * harness.PATIENCE)
    client.connect(("127.0.0.1", cluster.port))
    body = {"model": cluster.model_name, "prompt": list(range(3, 35)), "stream": True}
    content = json.dumps(body | {"max_tokens": tokens, "ignore_eos": True} | fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
    client.sendall(head.encode() + content)
    client.setblocking(False)
    return client


class Readers:
    """Streams that are read as they come, each followed by another, and the gaps seen."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._selector = selectors.DefaultSelector()
        self.gaps: list[float] = []
        self.whole = 0
        for _ in range(READERS):
            self._begin()

    def _begin(self):
        client = ask(self._cluster, TOKENS)
        self._selector.register(client, selectors.EVENT_READ, {"text": b"", "last": None})

    def read(self, seconds: float):
        """For so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._read(key.fileobj, key.data)

    def _read(self, client: socket.socket, stream: dict):
        got = client.recv(65536)
        now = time.monotonic()
        assert got, f"a reader was cut off: {stream['text'][-300:]}"
        if b"data: " in got:
            if stream["last"] is not None:
                self.gaps.append(now - stream["last"])
            stream["last"] = now
        stream["text"] += got
        if not stream["text"].endswith(b"\r\n0\r\n\r\n"):
            return
        assert stream["text"].startswith(b"HTTP/1.1 200 "), stream["text"][:300]
        assert b"data: [DONE]" in stream["text"][-40:] and b'"error"' not in stream["text"]
        self._selector.unregister(client)
        client.close()
        self.whole += 1
        self._begin()

    def close(self):
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
        self._selector.close()

    def take_gaps(self) -> list[float]:
        gaps, self.gaps = self.gaps, []
        return gaps


def p(gaps: list[float]) -> str:
    cuts = statistics.quantiles(gaps, n=100)
    return f"p50 {cuts[49] * 1e3:.0f} p95 {cuts[94] * 1e3:.0f} max {max(gaps) * 1e3:.0f} ms"


def cut_off(cluster) -> int:
    return cluster.router.log.read_text().count("too_slow")


def sip(clients: list[socket.socket]):
    for client in clients:
        try:
            client.recv(4)
        except (BlockingIOError, ConnectionResetError):
            continue


def test_they_slow_nobody_and_are_cut_off(start_cluster, tiny, profile, many_files):
    cluster = start_cluster(tiny, ROUTER, prefill=1, decode=1, profile=profile, **OPTIONS)
    readers = Readers(cluster)
    readers.read(3)
    readers.take_gaps()
    readers.read(5)
    alone = readers.take_gaps()
    handles = cluster.router.descriptors()
    memory = memory_mib(cluster.router)

    stalled = []
    for _ in range(STALLED // 50):
        stalled += [
            ask(cluster, ENDLESS, RECEIVE_BUFFER, logprobs=5, seed=i) for i in range(50)
        ]
        readers.read(0.1)
    beside: list[float] = []
    peak = memory
    deadline = time.monotonic() + 90 * harness.PATIENCE
    while cut_off(cluster) < STALLED:
        assert time.monotonic() < deadline, f"{cut_off(cluster)} of {STALLED} were cut off"
        sip(stalled[:SLOW])
        readers.read(1)
        beside += readers.take_gaps()
        peak = max(peak, memory_mib(cluster.router))
    print(f"gaps alone {p(alone)}, beside {p(beside)}; {readers.whole} streams whole")
    assert statistics.median(beside) < 2 * statistics.median(alone) + 0.02
    assert readers.whole >= READERS

    readers.close()
    harness.wait_for(lambda: not held.requests(cluster), 10, lambda: f"{held.requests(cluster)}")
    harness.wait_for(
        lambda: cluster.router.descriptors() <= handles - READERS,
        10,
        lambda: f"{cluster.router.descriptors()} descriptors, of {handles} before",
    )
    after = memory_mib(cluster.router)
    print(f"router MiB: {memory:.0f} before, {peak:.0f} at most, {after:.0f} after")
    assert after < memory + KEPT_MIB
    for client in stalled:
        client.close()
