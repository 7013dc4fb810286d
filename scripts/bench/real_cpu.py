"""A real model on the CPU: one worker of each kind against mixed ones on the same cores. Its figures
are as noisy as the machine; nothing depends on them."""

import asyncio
import statistics

from bench import load, open_loop, served
from bench.emulated import Placing, router_flags
from bench.open_loop import Request
from bench.real_cell import Context, Part, ms, of_cells, percent, say, spread

SETUPS = {
    "1 prefill + 1 decode, 1 thread each": [
        "--prefill", 1, "--decode", 1, "--threads-per-worker", 1,
    ],
    "2 mixed, 1 thread each": ["--mixed", 2, "--threads-per-worker", 1],
    "1 mixed, 2 threads": ["--mixed", 1, "--threads-per-worker", 2],
}  # fmt: skip
RATES = (1.5, 3.0)
SLO = {"ttft": 1.5, "tpot": 0.03}
INPUT, OUTPUT = 512, 64
WARM_UP = 8  # requests, one after the other, so that workers know what their steps take


def run(args, context: Context) -> Part:
    rounds = args.rounds or (1 if args.quick else 2)
    seconds = args.seconds or (8 if args.quick else 20)
    rates = RATES[1:2] if args.quick else RATES
    rows = []
    for number in range(rounds):
        for rate in rates:
            requests = draw(rate, seconds, args.seed + number)
            for name in list(SETUPS) if number % 2 == 0 else reversed(SETUPS):
                rows.append(cell(context, name, rate, requests, seconds, number))
    return Part(text(rows, rates, rounds, seconds), rows)


def draw(rate: float, seconds: float, seed: int) -> list[Request]:
    """Lengths that differ, of these means; a real model is told how long to go on."""
    traffic = open_loop.Traffic(INPUT, (), 1 / OUTPUT, 4 * OUTPUT, min_tokens=0)
    asked = open_loop.draw(traffic, rate, seconds, seed)
    return [Request(*one) for one in open_loop.draw_lengths(traffic, asked, seed)]


def cell(context: Context, name: str, rate: float, requests, seconds: float, number: int) -> dict:
    flags = [*SETUPS[name], *router_flags(Placing(), SLO), "--slo-class", "free: best-effort"]
    with served.Server(context.binaries, context.model, flags) as server:
        asyncio.run(warm_up(server))
        outcomes = asyncio.run(
            open_loop.play([server.port], server.model, requests, seed=number + 1)
        )  # fmt: skip
    row = open_loop.summary(outcomes, SLO, 0, seconds)
    say(f"{name}, {rate:g}/s: goodput {row['goodput']:.2f}, kept {percent(row['kept'])}")
    return {"setup": name, "rate": rate, "round": number} | row


async def warm_up(server: served.Server) -> None:
    """By requests that are never refused, however slow the first steps are."""
    for prompt in load.make_prompts(WARM_UP, INPUT, served.VOCAB, seed=1):
        body = load.body_of(server.model, prompt, OUTPUT) | {"service_tier": "free"}
        await load.stream_one(server.port, body)


def text(rows: list[dict], rates, rounds: int, seconds: float) -> str:
    out = [
        "## A real model on the CPU",
        "",
        f"SmolLM2-135M in bf16 on all cores, which clients and the router use, too. About {INPUT} tokens "
        f"in, {OUTPUT} out; targets TTFT {SLO['ttft']:g} s and TPOT {1e3 * SLO['tpot']:g} ms; `goodput` "
        f"with admission; {seconds:g} s of arrivals, {rounds} rounds in turns: medians, and the least "
        "and the most.",
        "",
        "| requests/s | workers | goodput | kept | TTFT p50, p99 | TPOT p50, p99 |",
        "|---|---|---|---|---|---|",
    ]
    for rate in rates:
        for name in SETUPS:
            found = of_cells(rows, setup=name, rate=rate)
            at = {
                key: ms(statistics.median(row[key] for row in found))
                for key in ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99")
            }
            out.append(
                f"| {rate:g} | {name} | {spread([r['goodput'] for r in found], '{:.2f}'.format)} "
                f"| {spread([r['kept'] for r in found], percent)} "
                f"| {at['ttft_p50']}, {at['ttft_p99']} ms | {at['tpot_p50']}, {at['tpot_p99']} ms |"
            )
    return "\n".join(out) + "\n"
