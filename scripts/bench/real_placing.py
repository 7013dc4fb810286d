"""Every placement policy, with admission and without, at the edge and beyond."""

import statistics

from bench import emulated, open_loop
from bench.emulated import Placing, Setup
from bench.real_cell import (
    CHAT,
    Context,
    Part,
    measure,
    ms,
    of_cells,
    percent,
    say,
    simulated_goodput,
    spread,
)

POLICIES = ["goodput", "least_loaded", "power_of_two", "prefix", "kv_cost", "round_robin"]
WITHOUT = ["goodput", "least_loaded", "round_robin"]
PLACINGS = [Placing(name) for name in POLICIES] + [Placing(name, False) for name in WITHOUT]
# What each serves in time, nine requests of ten, requests a second.
EDGES = {emulated.SPLIT.name: 42.0, emulated.MIXED.name: 20.0}
TIMES_EDGE = (1.0, 1.5)


def run(args, context: Context) -> Part:
    rounds = args.rounds or 1
    seconds = args.seconds or (6 if args.quick else 14)
    rows = []
    for number in range(rounds):
        for setup in (emulated.SPLIT, emulated.MIXED):
            for times in TIMES_EDGE:
                rate = times * EDGES[setup.name]
                requests = open_loop.draw(CHAT, rate, seconds, args.seed + number)
                for placing in turned(PLACINGS, number):
                    rows.append(cell(context, setup, placing, requests, rate, seconds, number))
    tables = [table(args, context, setup, rows, seconds) for setup in
              (emulated.SPLIT, emulated.MIXED)]  # fmt: skip
    return Part("\n".join([head(rounds, seconds), *tables]), rows)


def turned(placings: list[Placing], number: int) -> list[Placing]:
    """Each round begins with another, so that what the machine does meanwhile hits each in turn."""
    first = number * len(placings) // 2 % len(placings)
    return placings[first:] + placings[:first]


def cell(context, setup: Setup, placing: Placing, requests, rate, seconds, number) -> dict:
    found = measure(context, setup, placing, requests, seed=number).of(0, seconds)
    say(f"{setup.name}, {rate:g}/s, {placing.name}: goodput {found['goodput']:.1f}, "
        f"kept {percent(found['kept'])}, busy {percent(found['busy'], 0)}")  # fmt: skip
    return {"setup": setup.name, "placing": placing.name, "rate": rate, "round": number} | found


def head(rounds: int, seconds: float) -> str:
    return f"""## Every policy

Prompts of 500 tokens and answers of 57 in the mean, {seconds:g} s of arrivals. The same requests to
each policy, one policy after the other, {rounds} {"rounds" if rounds > 1 else "round"} of other
requests each: medians, and the least and the most. The first rate is about what the cluster serves in
time, the second half as much again. Simulated: by `baton sim` of the same cluster and arrivals.
"""


def table(args, context: Context, setup: Setup, rows: list[dict], seconds: float) -> str:
    out = [f"### {setup.name}"]
    for times in TIMES_EDGE:
        rate = times * EDGES[setup.name]
        requests = open_loop.draw(CHAT, rate, seconds, args.seed)
        out += [
            "",
            f"| at {rate:g}/s | goodput | simulated | kept | refused | TTFT p50, p99 | TPOT p50, p99 |",
            "|---|---|---|---|---|---|---|",
        ]
        for placing in PLACINGS:
            found = of_cells(rows, setup=setup.name, placing=placing.name, rate=rate)
            simulated = simulated_goodput(context, setup, placing, CHAT, requests, seconds)
            out.append(line(placing.name, found, simulated))
    return "\n".join(out) + "\n"


def line(name: str, found: list[dict], simulated: float) -> str:
    middle = {key: statistics.median(row[key] for row in found) for key in found[0]
              if isinstance(found[0][key], float | int)}  # fmt: skip
    return (
        f"| {name} | {spread([row['goodput'] for row in found], '{:.1f}'.format)} "
        f"| {simulated:.1f} | {spread([row['kept'] for row in found], percent)} "
        f"| {percent(middle['refused'] / middle['requests'], 0)} "
        f"| {ms(middle['ttft_p50'])}, {ms(middle['ttft_p99'])} ms "
        f"| {ms(middle['tpot_p50'])}, {ms(middle['tpot_p99'])} ms |"
    )
