"""The same load through four routers, which do not know of each other, against one."""

import statistics

from bench import emulated, open_loop
from bench.emulated import Placing
from bench.real_cell import CHAT, Context, Part, measure, ms, of_cells, percent, say, spread
from bench.real_placing import EDGES, TIMES_EDGE

SETUP = emulated.SPLIT
ROUTERS = (1, 4)
LOST = 0.05  # at most


def run(args, context: Context) -> Part:
    rounds = args.rounds or (1 if args.quick else 2)
    seconds = args.seconds or (10 if args.quick else 30)
    rows = []
    for number in range(rounds):
        for times in TIMES_EDGE:
            rate = times * EDGES[SETUP.name]
            requests = open_loop.draw(CHAT, rate, seconds, args.seed + number)
            for routers in ROUTERS if number % 2 == 0 else ROUTERS[::-1]:
                found = measure(context, SETUP, Placing(), requests, number, routers)
                row = found.of(0, seconds)
                say(f"{routers} routers, {rate:g}/s: goodput {row['goodput']:.1f}, "
                    f"kept {percent(row['kept'])}")  # fmt: skip
                rows.append({"num_routers": routers, "rate": rate, "round": number} | row)
    lost = {times: lost_at(rows, times * EDGES[SETUP.name]) for times in TIMES_EDGE}
    failed = any(statistics.median(values) > LOST for values in lost.values())
    return Part(text(rows, lost, rounds, seconds), rows, failed)


def lost_at(rows: list[dict], rate: float) -> list[float]:
    """Of each round."""
    one, four = (of_cells(rows, num_routers=n, rate=rate) for n in ROUTERS)
    return [1 - b["goodput"] / a["goodput"] for a, b in zip(one, four)]


def text(rows: list[dict], lost: dict[float, list[float]], rounds: int, seconds: float) -> str:
    out = [
        "## Four routers",
        "",
        f"{SETUP.name} workers, `goodput` with admission, {seconds:g} s of arrivals; requests go to the "
        f"routers in turn. {rounds} rounds: medians, and the least and the most. At most "
        f"{percent(LOST, 0)} of goodput may be lost.",
        "",
        "| requests/s | routers | goodput | lost | kept | TTFT p50, p99 |",
        "|---|---|---|---|---|---|",
    ]
    for times, values in lost.items():
        rate = times * EDGES[SETUP.name]
        for routers in ROUTERS:
            found = of_cells(rows, num_routers=routers, rate=rate)
            p50, p99 = (statistics.median(row[f"ttft_p{q}"] for row in found) for q in (50, 99))
            out.append(
                f"| {rate:g} | {routers} | {spread([r['goodput'] for r in found], '{:.1f}'.format)} "
                f"| {spread(values, percent) if routers > 1 else ''} "
                f"| {spread([r['kept'] for r in found], percent)} | {ms(p50)}, {ms(p99)} ms |"
            )
    return "\n".join(out) + "\n"
