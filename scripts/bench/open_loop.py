"""Clients who come when they come, whatever became of those before, and what became of each.

A client may come again: after a refusal with 503 it waits as long as Retry-After says.
"""

import asyncio
import dataclasses
import json
import math
import random
import statistics
import time

MARKS = 30_000  # two ids below this number a request
LEAD_SECONDS = 0.5  # before the first may come


@dataclasses.dataclass(frozen=True)
class Request:
    at: float  # seconds from the beginning
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...] = ()  # the first token with one of them in ends the answer; (): nothing
    min_tokens: int = 0  # before which it does not


@dataclasses.dataclass
class Outcome:
    """Times are seconds from the beginning."""

    asked: float  # when the first try was to be made
    last_asked: float = 0.0  # when the last one was
    tries: int = 0
    late: float = 0.0  # by which the client sent the first try too late
    status: int = 0  # of HTTP; 0: there was no answer
    first: float = math.nan  # token
    last: float = math.nan
    tokens: int = 0
    whole: bool = False  # the answer came to its end

    @property
    def ttft(self) -> float:
        """From the last try."""
        return self.first - self.last_asked

    @property
    def waited(self) -> float:
        """From the first try to the first token."""
        return self.first - self.asked

    @property
    def tpot(self) -> float:
        return (self.last - self.first) / (self.tokens - 1) if self.tokens > 1 else 0.0

    def met(self, slo: dict[str, float]) -> bool:
        return self.whole and self.ttft <= slo["ttft"] and self.tpot <= slo["tpot"]


class Answer:
    """What a server sent, as it comes; no event is parsed but the last, so that it costs little."""

    def __init__(self):
        self.status = 0
        self.retry_after: float | None = None
        self.first = self.last = math.nan
        self.tokens = 0
        self.whole = False
        self._rest = b""

    def feed(self, data: bytes, now: float) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                self._event(line, now)
            elif self.status == 0:
                self.status = int(line.split(b" ", 2)[1])
            elif line[:12].lower() == b"retry-after:":
                self.retry_after = float(line[12:])

    def _event(self, line: bytes, now: float) -> None:
        if b'"choices":[{' in line:
            if math.isnan(self.first):
                self.first = now
            self.last = now
        elif line.startswith(b"data: [DONE]"):
            self.whole = self.tokens > 0
        elif b'"choices":[]' in line:
            self.tokens = json.loads(line[6:])["usage"]["completion_tokens"]


class _Stream(asyncio.Protocol):
    def __init__(self, request: bytes):
        self.answer = Answer()
        self.over = asyncio.get_running_loop().create_future()
        self._request = request

    def connection_made(self, transport) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.answer.feed(data, time.perf_counter())

    def connection_lost(self, _) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Bodies:
    """Prompts of which no two begin alike, so that no prefix is cached; cheap to make."""

    def __init__(self, model: str, seed: int, vocabulary: int = 40_000):
        self.model = model
        self._source = random.Random(seed)
        # Ids of five digits, so that a prompt is cut out of a text of them.
        ids = [self._source.randrange(10_000, vocabulary) for _ in range(1 << 16)]
        self._ids = b",".join(b"%d" % token for token in ids)
        self._tokens = len(ids)
        self._heads: dict[tuple, bytes] = {}

    def make(self, number: int, request: Request) -> bytes:
        """The whole HTTP request."""
        more = max(request.prompt_tokens - 2, 0)
        begin = self._source.randrange(self._tokens - more)
        marks = b"%d,%d" % (10_000 + number // MARKS, 10_000 + number % MARKS)
        ids = marks[: 6 * request.prompt_tokens - 1]
        if more:
            ids += b"," + self._ids[6 * begin : 6 * (begin + more) - 1]
        data = b'%s,"seed":%d,"prompt":[%s]}' % (self._head(request), number, ids)
        return (
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)
        )

    def _head(self, request: Request) -> bytes:
        key = (request.max_tokens, request.stop, request.min_tokens)
        if key not in self._heads:
            fields = {
                "model": self.model, "max_tokens": request.max_tokens, "temperature": 0,
                "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
            }  # fmt: skip
            if request.stop:
                fields |= {"stop": list(request.stop), "min_tokens": request.min_tokens}
            self._heads[key] = json.dumps(fields)[:-1].encode()
        return self._heads[key]


async def play(ports: list[int], model: str, requests: list[Request], seed: int,
               tries: int = 1) -> list[Outcome]:  # fmt: skip
    """Over as many routers as there are ports: one after the other. Each request is tried so often
    at most."""
    bodies = Bodies(model, seed)
    begun = time.perf_counter() + LEAD_SECONDS
    turn = 0

    async def attempt(data: bytes) -> Answer:
        nonlocal turn
        turn += 1
        try:
            _, stream = await asyncio.get_running_loop().create_connection(
                lambda: _Stream(data), "127.0.0.1", ports[turn % len(ports)]
            )
        except OSError:
            return Answer()
        await stream.over
        return stream.answer

    async def one(number: int, request: Request) -> Outcome:
        outcome = Outcome(asked=request.at, late=time.perf_counter() - begun - request.at)
        data = bodies.make(number, request)
        due = request.at
        while True:
            outcome.tries += 1
            outcome.last_asked = due
            answer = await attempt(data)
            if answer.status != 503 or outcome.tries == tries or answer.retry_after is None:
                break
            due = time.perf_counter() - begun + answer.retry_after
            await asyncio.sleep(answer.retry_after)
        outcome.status, outcome.whole = answer.status, answer.whole
        outcome.first, outcome.last = answer.first - begun, answer.last - begun
        outcome.tokens = answer.tokens
        return outcome

    running = []
    for number, request in enumerate(requests):
        wait = begun + request.at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        running.append(asyncio.create_task(one(number, request)))
    return await asyncio.gather(*running)


# --- what is asked, and what came of it -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Log-normal prompts, and outputs whose length nobody knows beforehand: an emulated worker's
    tokens are random, and an answer ends with the first that has one of the `stop` strings in it."""

    prompt_tokens: float  # the mean
    stop: tuple[str, ...]
    ends: float  # the share of the vocabulary that has one of them in, for the simulator alone
    max_tokens: int
    min_tokens: int = 8  # of two, TPOT would be the one gap in which the hand-over lies
    most_prompt_tokens: int = 1500


def draw(traffic: Traffic, rate: float, seconds: float, seed: int, begin: float = 0.0):
    """Poisson arrivals for so long."""
    source = random.Random(f"{traffic} {rate} {seed}")
    requests, at = [], begin
    while (at := at + source.expovariate(rate)) < begin + seconds:
        tokens = round(traffic.prompt_tokens * math.exp(source.gauss(-0.18, 0.6)))
        tokens = min(max(tokens, 1), traffic.most_prompt_tokens)
        requests.append(Request(at, tokens, traffic.max_tokens, traffic.stop, traffic.min_tokens))
    return requests


def draw_lengths(traffic: Traffic, requests: list[Request], seed: int):
    """The requests as a simulator's trace: arrival, prompt and output tokens."""
    source = random.Random(seed)

    def output() -> int:
        more = 1 + int(source.expovariate(-math.log1p(-traffic.ends)))
        return min(traffic.min_tokens + more, traffic.max_tokens)

    return [(request.at, request.prompt_tokens, output()) for request in requests]


def quantile(values: list[float], share: float) -> float:
    """As the simulator has it; not a number where there is nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def summary(outcomes: list[Outcome], slo: dict[str, float], begin: float, seconds: float) -> dict:
    """Of the requests that first came within these seconds. For goodput those count that were
    accepted within them, whenever they first came: not who came again after the storm."""
    ours = [o for o in outcomes if begin <= o.asked < begin + seconds]
    accepted = [o for o in ours if o.status == 200]
    whole = [o for o in accepted if o.whole]
    met = [o for o in accepted if o.met(slo)]
    end = begin + seconds
    in_time = sum(begin <= o.last_asked < end and o.met(slo) for o in outcomes)
    refused = [o for o in ours if o.status in (422, 429, 503)]
    return {
        "requests": len(ours),
        "tries": sum(o.tries for o in ours),
        "accepted": len(accepted),
        "refused": len(refused),
        "failed": len(ours) - len(refused) - len(whole),
        "goodput": in_time / seconds,
        "met": len(met) / max(len(ours), 1),
        "kept": len(met) / len(accepted) if accepted else math.nan,
        "late_ttft": sum(o.ttft > slo["ttft"] for o in whole),
        "late_tpot": sum(o.tpot > slo["tpot"] for o in whole),
        "output": statistics.fmean(o.tokens for o in whole) if whole else math.nan,
        "client_late_p99": quantile([o.late for o in ours], 0.99),
        **{
            f"{figure}_p{share}": quantile([getattr(o, figure) for o in whole], share / 100)
            for figure in ("ttft", "tpot", "waited")
            for share in (50, 90, 99)
        },
    }
