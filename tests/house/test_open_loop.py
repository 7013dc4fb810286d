"""The open-loop client of the benchmarks, and what is made of its answers."""

import asyncio
import json
import math
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))

from bench import open_loop, real_cell, real_roles  # noqa: E402
from bench.open_loop import Answer, Bodies, Outcome, Request, Traffic  # noqa: E402

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
TOKEN = b'data: {"id":"x","choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null}\n\n'
CLOSING = b'data: {"id":"x","choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n'
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0.05\r\nretry-after-ms: 7\r\n"
    b'content-length: 12\r\n\r\n{"error":{}}'
)


def test_an_answer_is_read_however_it_is_cut():
    whole = HEAD + TOKEN * 3 + CLOSING
    for size in (1, 7, len(whole)):
        answer = Answer()
        for i in range(0, len(whole), size):
            answer.feed(whole[i : i + size], now=float(i))
        assert (answer.status, answer.tokens, answer.whole) == (200, 3, True)
        assert answer.first <= answer.last < len(whole)
    one_by_one = Answer()
    for now, part in enumerate([HEAD, TOKEN, TOKEN, TOKEN, CLOSING]):
        one_by_one.feed(part, now=float(now))
    assert (one_by_one.first, one_by_one.last) == (1.0, 3.0)


def test_an_answer_that_breaks_off_or_ends_with_an_error_is_not_whole():
    broken, failed = Answer(), Answer()
    broken.feed(HEAD + TOKEN, 1.0)
    failed.feed(HEAD + TOKEN + b'data: {"error":{"message":"x"}}\n\ndata: [DONE]\n\n', 1.0)
    assert not broken.whole and not failed.whole


def test_a_refusal_says_when_to_come_again():
    answer = Answer()
    answer.feed(REFUSAL, 1.0)
    assert (answer.status, answer.retry_after, answer.whole) == (503, 0.05, False)
    assert math.isnan(answer.first)


@pytest.mark.parametrize("tokens", [1, 2, 3, 700])
def test_prompts_have_their_length_and_begin_differently(tokens):
    bodies = Bodies("m", seed=1)
    seen = set()
    for number in (0, 1, 40_000):
        head, _, data = bodies.make(number, Request(0, tokens, 9, ("D",), 4)).partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(data) in head
        body = json.loads(data)
        assert len(body["prompt"]) == tokens and min(body["prompt"]) >= 10_000
        assert (body["seed"], body["max_tokens"], body["stop"]) == (number, 9, ["D"])
        assert body["min_tokens"] == 4
        seen.add(tuple(body["prompt"][:2]))
    assert len(seen) == (2 if tokens == 1 else 3)


def test_the_same_seed_asks_the_same():
    request = Request(0, 50, 9)
    assert Bodies("m", 3).make(5, request) == Bodies("m", 3).make(5, request)
    assert Bodies("m", 3).make(5, request) != Bodies("m", 4).make(5, request)


async def play_against(refusals: int, tries: int) -> Outcome:
    """One request, to a server that refuses so often."""
    asked = 0

    async def serve(reader, writer):
        nonlocal asked
        asked += 1
        await reader.readuntil(b"]}")
        writer.write(REFUSAL if asked <= refusals else HEAD + TOKEN * 3 + CLOSING)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        [outcome] = await open_loop.play([port], "m", [Request(0.0, 5, 9)], 1, tries)
    return outcome


def test_a_client_comes_again_when_it_was_told_to():
    outcome = asyncio.run(play_against(refusals=2, tries=3))
    assert (outcome.tries, outcome.status, outcome.whole) == (3, 200, True)
    assert outcome.last_asked >= 0.1  # it waited twice
    assert outcome.waited >= 0.1 > outcome.ttft


def test_a_client_gives_up_in_the_end():
    outcome = asyncio.run(play_against(refusals=3, tries=3))
    assert (outcome.tries, outcome.status, outcome.whole) == (3, 503, False)


def test_nobody_there_is_a_failure():
    async def play():
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await open_loop.play([port], "m", [Request(0.0, 5, 9)], seed=1)

    [outcome] = asyncio.run(play())
    found = open_loop.summary([outcome], {"ttft": 1, "tpot": 1}, 0, 1)
    assert (found["failed"], found["refused"], found["goodput"]) == (1, 0, 0)


def outcome(asked: float, ttft: float = 0.1, tpot: float = 0.01, **more) -> Outcome:
    times = {"first": asked + ttft, "last": asked + ttft + 9 * tpot, "tokens": 10}
    known = {"status": 200, "whole": True, "tries": 1, "last_asked": asked}
    return Outcome(asked=asked, **(times | known | more))


def test_what_came_of_them():
    found = open_loop.summary(
        [
            outcome(0.0),
            outcome(1.0, ttft=0.5),
            outcome(2.0, tpot=0.5),
            outcome(3.0, whole=False),
            outcome(4.0, status=503, whole=False, tries=3),
            outcome(5.0, last_asked=12.0, first=12.1, last=12.2),  # after the storm
            outcome(11.0),  # not of it
        ],
        {"ttft": 0.2, "tpot": 0.1},
        begin=0.0,
        seconds=10.0,
    )
    counts = {key: found[key] for key in ("requests", "tries", "accepted", "refused", "failed")}
    assert counts == {"requests": 6, "tries": 8, "accepted": 5, "refused": 1, "failed": 1}
    assert found["goodput"] == 0.1
    assert (found["met"], found["kept"]) == (2 / 6, 2 / 5)
    assert (found["late_ttft"], found["late_tpot"]) == (1, 1)


def test_traffic_is_what_it_says():
    traffic = Traffic(500, ("D",), 1 / 60, 300)
    requests = open_loop.draw(traffic, rate=100, seconds=100, seed=1, begin=50)
    assert abs(len(requests) / 10_000 - 1) < 0.05
    assert 50 <= requests[0].at < requests[-1].at < 150
    assert abs(sum(r.prompt_tokens for r in requests) / len(requests) - 500) < 15
    lengths = [n for _, _, n in open_loop.draw_lengths(traffic, requests, 2)]
    assert min(lengths) == 9 and max(lengths) == 300
    assert abs(sum(lengths) / len(lengths) - 67) < 3


def test_roles_are_settled_when_they_are_there_for_good():
    def seen(*prefill: int) -> real_cell.Measured:
        roles = [(10.0 + i, {"prefill": n}) for i, n in enumerate(prefill)]
        return real_cell.Measured([], {}, roles)

    assert real_roles.settled(seen(2, 3, 5, 6, 6), 10, 5)["settled"] == 1.0
    assert real_roles.settled(seen(6, 6, 2, 6, 6), 10, 5)["settled"] == 2.0
    assert real_roles.settled(seen(6, 6, 5), 10, 5)["settled"] == 0.0
