"""The waterfall beside a client outside: what the access log's stages sum up to, and what the client
itself saw, for a thousand requests that are handed over between emulated workers.

    python -m pytest -s tests/integration/test_waterfall.py    # prints the figures of docs/metrics.md
"""

import asyncio
import itertools
import json
import random
import time

import harness
import hash_model
import pytest
import requests
import tiny_model

REQUESTS, CLIENTS, TOKENS = 1000, 2, 4
VOCAB, EOS = 512, (2,)  # of tiny_model
OPTIONS = {
    "device": "emulated",
    "profile": harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml",
    "kv_gib": 1,
}
FIRST = ["parse", "admission", "reserve", "prefill_queue", "prefill", "relay"]
SECOND = ["parked", "exposed_transfer", "decode_queue", "first_step", "handover_relay",
          "handover_rest"]  # fmt: skip
UNMEASURED = {"relay", "handover_rest"}  # what is left over, as a stage of its own


class Seen:
    """One request, by the client's clock: when it was sent, and when each event came."""

    def __init__(self, name: str, sent: float):
        self.name, self.sent, self.events = name, sent, []

    @property
    def ttft(self) -> float:
        return self.events[0] - self.sent

    @property
    def gap(self) -> float:
        return self.events[1] - self.events[0]


def prompt_of(number: int) -> list[int]:
    draw = random.Random(number)
    return [draw.randrange(3, 300) for _ in range(draw.randrange(50, 600))]


def text_of(cluster, token: int) -> str:
    body = {"model": cluster.model_name, "tokens": [token]}
    return requests.post(cluster.url + "/detokenize", json=body, timeout=10).json()["prompt"]


def numbers_to_ask(cluster) -> list[int]:
    """Requests each of whose tokens has a text of its own, so that it is an event of its own."""
    texts = {token: text_of(cluster, token) for token in range(VOCAB)}
    plain = {token for token, text in texts.items() if text.isascii() and text}

    def is_plain(number: int) -> bool:
        drawn = hash_model.output(prompt_of(number), TOKENS, VOCAB, EOS, number, 0)
        return set(drawn) <= plain

    return list(itertools.islice(filter(is_plain, itertools.count()), REQUESTS))


async def ask(cluster, streams, number: int) -> Seen:
    body = {
        "model": cluster.model_name,
        "prompt": prompt_of(number),
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "seed": number,
        "stream": True,
    }
    text = json.dumps(body)
    name = f"outside-{number}"
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nx-request-id: {name}\r\n"
    head += f"Content-Length: {len(text)}\r\n\r\n"
    reader, writer = streams
    seen = Seen(name, time.perf_counter())
    writer.write((head + text).encode())
    while True:
        line = await reader.readline()
        assert line, "the connection ended"
        if line.startswith(b"data: {"):
            seen.events.append(time.perf_counter())
        elif line.startswith(b"HTTP/1.1"):
            assert b" 200 " in line, line
        elif line.startswith(b"0\r\n"):
            await reader.readline()
            return seen


async def client(cluster, numbers) -> list[Seen]:
    streams = await asyncio.open_connection("127.0.0.1", cluster.port)
    seen = [await ask(cluster, streams, number) for number in numbers]
    streams[1].close()
    return seen


async def all_clients(cluster) -> list[Seen]:
    numbers = numbers_to_ask(cluster)
    parts = await asyncio.gather(*(client(cluster, numbers[i::CLIENTS]) for i in range(CLIENTS)))
    return [seen for part in parts for seen in part]


@pytest.fixture(scope="module")
def lines(tmp_path_factory, start_shared_cluster):
    """What the client saw of each request, and the access log's line of it."""
    model = tiny_model.write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    log = tmp_path_factory.mktemp("access") / "access.jsonl"
    router = harness.ALL_HANDED_OFF | {"access_log": log}
    cluster = start_shared_cluster(model, router, prefill=1, decode=1, **OPTIONS)
    seen = asyncio.run(all_clients(cluster))

    def logged() -> dict:
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        return {row["id"]: row for row in rows}

    names = {one.name for one in seen}
    harness.wait_for(lambda: names <= set(logged()), 10, "a line of each request")
    rows = logged()
    assert {len(one.events) for one in seen} == {TOKENS + 1}  # the last one is the end
    return [(one, rows[one.name]) for one in seen]


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


def bound(seconds: float) -> float:
    """max(5 %, 1 ms)"""
    return max(0.05 * seconds, 1e-3)


def show(what: str, seen: list[float], left: list[float], unmeasured: list[float]) -> None:
    within = [x <= bound(whole) for x, whole in zip(map(abs, left), seen, strict=True)]
    exported = [x <= bound(whole) for x, whole in zip(unmeasured, seen, strict=True)]
    print(f"\n{what}, ms (50, 95, 99 of 100), and the share of requests within the bound:")
    for name, values, ok in [("the client saw", seen, None), ("no stage has", left, within),
                             ("the last stage has", unmeasured, exported)]:  # fmt: skip
        figures = " ".join(f"{1e3 * quantile(values, q):8.3f}" for q in (0.5, 0.95, 0.99))
        print(f"  {name:20}{figures}" + (f"   {sum(ok) / len(ok):.3f}" if ok else ""))


def compare(lines, key: str, stages: list[str], figure: str) -> None:
    seen, left, unmeasured = [], [], []
    for one, row in lines:
        told = row[key]
        assert set(told) == set(stages), told
        whole = getattr(one, figure)
        seen.append(whole)
        left.append(whole - sum(told.values()) / 1e3)
        unmeasured.append(sum(told[name] for name in UNMEASURED & set(stages)) / 1e3)
    show(figure, seen, left, unmeasured)
    typical = quantile(seen, 0.5)
    # Of all stages together, and of what some process has measured itself.
    assert abs(quantile(left, 0.5)) <= bound(typical)
    both = [a + b for a, b in zip(left, unmeasured, strict=True)]
    assert quantile(both, 0.5) <= bound(typical) * harness.PATIENCE


def test_the_stages_to_the_first_token_sum_up_to_what_the_client_saw(lines):
    compare(lines, "ttft_stages_ms", FIRST, "ttft")


def test_the_stages_of_the_hand_over_sum_up_to_what_the_client_saw(lines):
    compare(lines, "handover_stages_ms", SECOND, "gap")
