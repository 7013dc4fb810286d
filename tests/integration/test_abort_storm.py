"""Two hundred clients a second leave, for half a minute, at whatever stage their requests are."""

import asyncio
import json
import random
import threading
import time

import harness
import held
import pytest
from streams import Stream, check, reference

A_SECOND = 200
SECONDS = 30
PROMPT = "the baton goes from hand to hand "


def request(random: random.Random, model: str) -> bytes:
    words = "relay " * random.choice([2, 2, 30, 300, 900])
    body = {
        "model": model,
        "prompt": f"{random.randrange(1 << 30)} {words}",
        "max_tokens": 1000,  # nobody stays until then
        "ignore_eos": True,
        "stream": random.random() < 0.8,
    }
    text = json.dumps(body)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


async def ask_and_leave(port: int, asked: bytes, seconds: float):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    await asyncio.sleep(seconds)
    writer.transport.abort()


async def storm(cluster, random: random.Random) -> float:
    """Each leaves after so long, evenly in the order of magnitude; returns how long it took."""
    port, model = cluster.port, cluster.model_name
    begun = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for i in range(A_SECOND * SECONDS):
            await asyncio.sleep(max(0, begun + i / A_SECOND - time.monotonic()))
            asked = request(random, model)
            tasks.create_task(ask_and_leave(port, asked, 10 ** random.uniform(-3.3, -0.5)))
    return time.monotonic() - begun


class Steady(threading.Thread):
    """Streams that go on meanwhile, one after the other, each with its whole text."""

    def __init__(self, cluster, bodies: list[dict], expected: list[str]):
        super().__init__(daemon=True)
        self.rounds, self.failure, self._stop_it = 0, None, threading.Event()
        self._run = lambda: check([Stream(cluster, **body) for body in bodies], expected)
        self._all = len(bodies)
        self.start()

    def run(self):
        try:
            while not self._stop_it.is_set():
                assert self._run() == self._all, "not all were served"
                self.rounds += 1
        except Exception as failure:  # reported by the main thread
            self.failure = failure

    def end(self):
        self._stop_it.set()
        self.join()
        assert self.failure is None, self.failure
        assert self.rounds > 0


@pytest.mark.slow
@pytest.mark.timeout(180 * harness.PATIENCE)
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_nothing_is_held_after_the_aborts(start_cluster, tiny, transport):
    cluster = start_cluster(tiny, prefill=1, decode=1, chunk_tokens=64, transport=transport)
    bodies = [{"prompt": f"{i} {PROMPT * 20}", "max_tokens": 100} for i in range(4)]
    expected = reference(cluster, bodies)

    def quiet() -> bool:
        return not held.requests(cluster)

    harness.wait_for(quiet, 10, lambda: f"quiet before the storm, but: {held.requests(cluster)}")
    handles, blocks = held.settled_handles(cluster), held.blocks(cluster)

    steady = Steady(cluster, bodies, expected)
    took = asyncio.run(storm(cluster, random.Random(f"aborts {transport}")))
    steady.end()

    harness.wait_for(quiet, 5, lambda: f"nothing held, but: {held.requests(cluster)}")
    assert held.blocks(cluster) == blocks, "every block is in one state"
    harness.wait_for(
        lambda: held.handles(cluster) == handles,
        5,
        lambda: f"{held.handles(cluster)} as before: {handles}",
    )
    assert check([Stream(cluster, **body) for body in bodies], expected) == len(bodies)
    left = held.stages(cluster)
    print(
        f"{A_SECOND * SECONDS} in {took:.1f} s, left in {dict(left)}; {steady.rounds} rounds beside"
    )
    assert sum(left.values()) > A_SECOND * SECONDS / 2, "the others had left before they were heard"
    assert all(left[stage] > 0 for stage in ["prefill", "transfer", "decode"]), left
