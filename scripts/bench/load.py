"""Streams of completions against a server, so many at once; every token's arrival is kept."""

import asyncio
import dataclasses
import json
import random
import time


@dataclasses.dataclass
class Request:
    sent: float
    arrivals: list[float]  # of events that carry text
    tokens: int  # by the server's own count
    counts: list[int]  # tokens up to each arrival, as the server counts them

    @property
    def ttft(self) -> float:
        return self.arrivals[0] - self.sent

    @property
    def tpot(self) -> float:
        return (self.arrivals[-1] - self.arrivals[0]) / (self.tokens - 1)

    @property
    def worst_gap(self) -> float:
        return max(b - a for a, b in zip(self.arrivals, self.arrivals[1:]))


async def stream_one(port: int, body: dict) -> Request:
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    sent = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + data)
    arrivals, counts, tokens = [], [], 0
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        now = time.perf_counter()
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(event["error"]["message"])
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        if event["choices"] and event["choices"][0]["text"]:
            arrivals.append(now)
            counts.append(tokens)
    writer.close()
    if not arrivals:
        raise RuntimeError("an answer without text")
    return Request(sent, arrivals, tokens, counts)


def body_of(model: str, prompt: list[int], output_tokens: int) -> dict:
    return {
        "model": model, "prompt": prompt, "max_tokens": output_tokens, "ignore_eos": True,
        "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip


async def run(port: int, model: str, prompts: list[list[int]], output_tokens: int, at_once: int):
    """All prompts, `at_once` of them at any time. Returns the requests and the seconds it took."""
    gate = asyncio.Semaphore(at_once)

    async def one(prompt: list[int]) -> Request:
        async with gate:
            return await stream_one(port, body_of(model, prompt, output_tokens))

    started = time.perf_counter()
    requests = await asyncio.gather(*map(one, prompts))
    return requests, time.perf_counter() - started


def make_prompts(count: int, tokens: int, vocab: int, seed: int) -> list[list[int]]:
    """No two share a beginning, so that no prefix is cached."""
    source = random.Random(seed)
    return [[source.randrange(100, vocab) for _ in range(tokens)] for _ in range(count)]
