"""After a storm of requests, many of them broken off, every worker holds nothing."""

import asyncio
import dataclasses
import random

import harness
import httpx
import pytest
import sse

REQUESTS = 500
AT_ONCE = 24


@dataclasses.dataclass
class Outcome:
    finished: int = 0
    cancelled_before_answer: int = 0
    cancelled_in_stream: int = 0
    refused: int = 0
    tokens_of_cancelled: list[int] = dataclasses.field(default_factory=list)


def make_request(random: random.Random, model: str) -> dict:
    words = random.choices(["baton", "relay", "pass", "日本", "1"], k=random.choice([3, 30, 600]))
    body = {
        "model": model,
        "prompt": " ".join(words),
        "max_tokens": random.choice([1, 8, 32, 96]),
        "temperature": random.choice([0, 1]),
        "seed": random.randrange(1 << 30),
        "stream": random.random() < 0.8,
    }
    if random.random() < 0.15:
        body["n"] = 2
    if random.random() < 0.15:
        body["logprobs"] = 2
    return body


async def run_one(client: httpx.AsyncClient, body: dict, leave_after: float | None, out: Outcome):
    """One request; breaks it off after that many seconds, wherever it then is."""
    tokens = 0
    answered = False

    async def go():
        nonlocal tokens, answered
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code in (429, 503):
                out.refused += 1
                return
            assert answer.status_code == 200, await answer.aread()
            parser = sse.SseParser()
            async for chunk in answer.aiter_bytes():
                answered = True
                if body["stream"]:
                    events = parser.feed(chunk)
                    assert not any('"error"' in event for event in events), events
                    tokens += len(events)
            assert parser.done or not body["stream"]
            out.finished += 1

    try:
        await asyncio.wait_for(go(), leave_after or 120 * harness.PATIENCE)
    except TimeoutError:
        assert leave_after is not None, f"hung: {body}"
        if answered:
            out.cancelled_in_stream += 1
            out.tokens_of_cancelled.append(tokens)
        else:
            out.cancelled_before_answer += 1


async def storm(cluster, random: random.Random, count: int) -> Outcome:
    out = Outcome()
    gate = asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)

    async with httpx.AsyncClient(base_url=cluster.url, timeout=None, limits=limits) as client:

        async def gated(body, leave_after):
            async with gate:
                await run_one(client, body, leave_after, out)

        plans = []
        for i in range(count):
            # From at once to late in decode, evenly in the order of magnitude.
            leave_after = 10 ** random.uniform(-3.3, 0.3) if i % 3 == 0 else None
            plans.append(gated(make_request(random, cluster.model_name), leave_after))
        await asyncio.gather(*plans)
    return out


def held(cluster) -> dict[str, float]:
    """What workers hold for requests; nothing when none is there."""
    found = {}
    for name in cluster.workers:
        metrics = cluster.metrics(name)
        assert metrics.has("baton_kv_blocks"), metrics.text
        for state in ["active", "quarantined"]:
            found[f"{name} {state}"] = metrics.sum("baton_kv_blocks", state=state)
        found[f"{name} running"] = metrics.sum("vllm:num_requests_running")
        found[f"{name} waiting"] = metrics.sum("vllm:num_requests_waiting")
    return {what: value for what, value in found.items() if value != 0}


def handles(cluster) -> dict[str, tuple[int, int, int]]:
    return {p.name: (p.descriptors(), p.sockets(), p.threads()) for p in cluster.processes()}


SETUPS = {
    "shm": {"prefill": 1, "decode": 1, "transport": "shm"},
    "tcp": {"prefill": 1, "decode": 1, "transport": "tcp"},
    "mixed": {"mixed": 1},
    "crowded": {"prefill": 2, "decode": 2, "kv_gib": 0.02},
}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("setup", SETUPS)
def test_nothing_is_held_after_the_storm(start_cluster, medium, setup):
    cluster = start_cluster(medium, chunk_tokens=64, **SETUPS[setup])
    seed = random.Random(f"leak {setup}")
    asyncio.run(storm(cluster, seed, 20))  # pairs have met, pools have grown
    harness.wait_for(lambda: not held(cluster), 1, "quiet before the storm")
    before = handles(cluster)

    out = asyncio.run(storm(cluster, seed, REQUESTS))

    harness.wait_for(lambda: not held(cluster), 1, f"nothing held, but: {held(cluster)}")
    harness.wait_for(
        lambda: handles(cluster) == before, 1, f"{handles(cluster)} as before: {before}"
    )
    for name in cluster.workers:
        metrics = cluster.metrics(name)
        states = ["free", "active", "cached", "quarantined"]
        total = sum(metrics.sum("baton_kv_blocks", state=state) for state in states)
        assert total > 0
        assert metrics.sum("baton_kv_blocks") == total
    # The storm did what its name says.
    assert out.finished > REQUESTS / 2
    assert out.cancelled_before_answer > 20
    assert out.cancelled_in_stream > 20
    assert len(set(out.tokens_of_cancelled)) > 5
    print(out)
