"""Whether the simulator is right: the same requests to real processes and to `baton sim`.

The workers are emulated (docs/emulated.md), so that steps and hand-offs take the same time on both
sides; all else is real on one of them. Their device is the profile's, slowed down so that a few
dozen requests a second are an overload: clients and processes then take little of the machine.

--replay: the steps and requests of one real run, without admission, are recorded, and played again
by the simulator.
"""

import argparse
import asyncio
import csv
import json
import math
import pathlib
import random
import statistics
import sys
import tempfile

from bench import emulated, open_loop, served
from bench.emulated import SLO, Setup
from bench.open_loop import quantile

SIMULATED = 8  # runs of the same requests: when workers tell of their load is drawn for each
MOST_SECONDS = 300  # of requests' arrivals, for one rate


SETUPS = {"split": emulated.SPLIT, "mixed": emulated.MIXED}
RATES = {  # from idle to overload
    emulated.SPLIT.name: (10, 20, 35, 45),
    emulated.MIXED.name: (10, 25, 45, 60),
}
WITHIN = {"met": 0.02, "ttft_p50": 0.05, "ttft_p90": 0.05, "tpot_p50": 0.05, "tpot_p90": 0.05}
FIGURES = list(WITHIN)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=pathlib.Path, required=True, help="for its tokenizer")
    parser.add_argument("--bin", type=pathlib.Path, default=emulated.ROOT / "build/release/bin")
    parser.add_argument("--setup", choices=SETUPS, action="append", help="default: all")
    parser.add_argument("--rates", type=float, nargs="+", help="instead of the setup's own")
    parser.add_argument("--requests", type=int, default=400, help="of each rate and round")
    parser.add_argument("--rounds", type=int, default=1, help="of other requests each")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--policy", default="goodput")
    parser.add_argument("--no-admission", action="store_true")
    parser.add_argument("--message-us", type=float, default=100, help="simulated; of any message")
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures of each round")
    args = parser.parse_args()
    if not (1 <= args.requests <= 20_000 and 1 <= args.rounds <= 20):
        parser.error("--requests is not in [1, 20000], or --rounds not in [1, 20]")
    setups = [SETUPS[name] for name in args.setup or SETUPS]
    with tempfile.TemporaryDirectory() as folder:
        run = replay if args.replay else compare
        return max([run(args, setup, pathlib.Path(folder)) for setup in setups])


# --- rates from idle to overload ------------------------------------------------------------------


def compare(args, setup: Setup, folder: pathlib.Path) -> int:
    """1 if the median of any difference was more than it may be."""
    rounds = {rate: [] for rate in args.rates or RATES[setup.name]}
    emulated.write_inputs(setup, folder, args.message_us)
    for seed in range(args.first_seed, args.first_seed + args.rounds):
        for rate in rounds:
            print(f"{setup.name}: {rate:g} requests/s, seed {seed}", file=sys.stderr)
            rounds[rate].append(one_round(args, setup, rate, seed, folder))
    if args.json:
        with args.json.open("a") as file:
            for rate, found in rounds.items():
                for one in found:
                    json.dump({"setup": setup.name, "rate": rate} | one, file)
                    file.write("\n")
    return print_table(setup, rounds)


def one_round(args, setup: Setup, rate: float, seed: int, folder: pathlib.Path) -> dict:
    """By a cluster of its own: a router learns from what it has served, and so does a simulated
    one, which begins with nothing."""
    requests = draw(rate, args.requests, seed)
    emulated.write_trace(requests, folder / "trace.csv")
    record = folder / "record"
    record.mkdir(exist_ok=True)
    with start(args, setup, folder, "--record", record) as server:
        outcomes, late = asyncio.run(play(server, requests))
    rows = csv.DictReader((record / "requests.csv").open())
    heard = [(float(row["ttft_s"]), float(row["tpot_s"] or 0)) for row in rows if row["ttft_s"]]
    return {"seed": seed, "real": summary(len(requests), outcomes),
            "router": summary(len(requests), heard),
            "simulated": simulate(args, folder, "--known-lengths"),
            "client_late_p90": late}  # fmt: skip


def print_table(setup: Setup, rounds: dict[float, list[dict]]) -> int:
    print(
        f"\n{setup.name}\n\n| requests/s | | real | at the router | simulated | off by | least .. most |"
    )
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for rate, found in rounds.items():
        for figure in FIGURES:
            real = [one["real"][figure] for one in found]
            simulated = [one["simulated"][figure] for one in found]
            off = [difference(figure, r, s) for r, s in zip(real, simulated)]
            median = statistics.median(off)
            wrong = abs(median) > WITHIN[figure]
            failed |= wrong
            print(
                f"| {rate:g} | {figure} | {shown(figure, statistics.median(real))} "
                f"| {shown(figure, statistics.median(one['router'][figure] for one in found))} "
                f"| {shown(figure, statistics.median(simulated))} | {100 * median:+.1f} %"
                f"{' !' if wrong else ''} | {100 * min(off):+.1f} .. {100 * max(off):+.1f} |"
            )
        late = statistics.median(one["client_late_p90"] for one in found)
        print(f"| {rate:g} | client late, p90 | {1000 * late:.2f} ms | | | | |", flush=True)
    return int(failed)


def shown(figure: str, value: float) -> str:
    return f"{100 * value:.1f} %" if figure == "met" else f"{1000 * value:.1f} ms"


def difference(figure: str, real: float, simulated: float) -> float:
    """In points of a share, or as a part of the real time."""
    return simulated - real if figure == "met" else simulated / real - 1


# --- a recorded run, replayed ---------------------------------------------------------------------


def replay(args, setup: Setup, folder: pathlib.Path) -> int:
    """1 if a decision was another, or a figure further off than it may be."""
    args.no_admission = True  # of who is refused nothing is known to replay
    failed = 0
    for rate in args.rates or RATES[setup.name][:2]:
        record = folder / f"record-{rate:g}"
        record.mkdir(exist_ok=True)
        emulated.write_inputs(setup, folder, args.message_us)
        requests = draw(rate, args.requests, args.first_seed)
        with start(args, setup, folder, "--record", record) as server:
            asyncio.run(play(server, requests))
        rows = sorted(csv.DictReader((record / "requests.csv").open()), key=arrival_of)
        name_by_first_use(rows, record)
        begun = arrival_of(rows[0])
        again = [
            (arrival_of(row) - begun, int(row["prompt_tokens"]), int(row["output_tokens"]))
            for row in rows
        ]
        emulated.write_trace(again, folder / "trace.csv")
        decisions = folder / "decisions"
        simulated = simulate(args, folder, "--known-lengths", "--step-times", record,
                             "--log-decisions", decisions)  # fmt: skip
        real = summary(len(rows), [(float(r["ttft_s"]), float(r["tpot_s"] or 0)) for r in rows])
        failed |= print_replay(setup, rate, real, simulated, rows, decisions.read_text())
    return failed


def name_by_first_use(rows: list[dict], record: pathlib.Path):
    """Renames the recordings of steps. Workers have ids drawn at random, and equals are taken in
    the order of ids, which is that of the simulator's names: who was first comes first there."""
    steps = {path: path.stem.removeprefix("steps-") for path in record.glob("steps-*.csv")}
    used = [row[side] for row in sorted(rows, key=placed_of) for side in ("prefill", "decode")]
    order = list(dict.fromkeys([*filter(None, used), *sorted(steps.values())]))
    for path, name in steps.items():
        role = name.split("-")[0]
        index = [other for other in order if other.split("-")[0] == role].index(name)
        path.rename(record / f"renamed-{role}-{index}.csv")
    for path in record.glob("renamed-*.csv"):
        path.rename(record / path.name.replace("renamed", "steps"))


def placed_of(row: dict) -> float:
    return float(row["placed_s"])


def arrival_of(row: dict) -> float:
    return float(row["arrival_s"])


def print_replay(setup, rate: float, real: dict, simulated: dict, rows: list, log: str) -> int:
    real_order = sorted(range(len(rows)), key=lambda i: placed_of(rows[i]))
    sim_order, sim_places = [], {}
    for line in log.splitlines():
        _, request, what, *workers = line.split()
        if what not in ("pair", "park", "whole") or int(request) in sim_places:
            continue
        sim_order.append(int(request))
        sim_places[int(request)] = tuple(workers)
    real_places = {i: places_of(row) for i, row in enumerate(rows)}
    same = same_places(real_places, sim_places, real_order)
    in_order = sum(a == b for a, b in zip(real_order, sim_order))
    print(f"\n{setup.name}, {rate:g} requests/s, recorded steps replayed: {len(rows)} requests")
    print(f"order of decisions: {in_order} of {len(rows)} in the same place")
    print(f"decisions, but for the names of workers: {sum(same)} of {len(rows)} the same, "
          f"the first {first_false(same)} without a difference\n")  # fmt: skip
    print("| figure | real | replayed | off by |\n|---|---|---|---|")
    failed = int(not all(same) or in_order != len(rows))
    for figure in FIGURES:
        off = difference(figure, real[figure], simulated[figure])
        failed |= abs(off) > WITHIN[figure]
        print(f"| {figure} | {shown(figure, real[figure])} | {shown(figure, simulated[figure])} "
              f"| {100 * off:+.1f} % |", flush=True)  # fmt: skip
    return failed


def places_of(row: dict) -> tuple[str, ...]:
    workers = (row["prefill"], row["decode"])
    return workers[:1] if len(set(workers)) == 1 else tuple(filter(None, workers))


def same_places(real: dict, simulated: dict, order: list[int]) -> list[bool]:
    """In this order. Workers are told apart by ids that are drawn at random, and equals are taken
    in the order of ids: who is who shows in the first decisions that name them."""
    names, taken, same = {}, set(), []
    for request in order:
        ours, theirs = real[request], simulated.get(request, ())
        if len(ours) == len(theirs):
            for a, b in zip(ours, theirs):
                if a not in names and b not in taken and a.split("-")[0] == b.split("-")[0]:
                    names[a] = b
                    taken.add(b)
        same.append(tuple(names.get(a) for a in ours) == theirs)
    return same


def first_false(values: list[bool]) -> int:
    return values.index(False) if False in values else len(values)


# --- what both are given --------------------------------------------------------------------------


def draw(rate: float, count: int, seed: int) -> list[tuple[float, int, int]]:
    """Arrival, prompt and output tokens of each: Poisson, and lengths that differ a lot."""
    source = random.Random(f"{rate} {count} {seed}")
    at, requests = 0.0, []
    for _ in range(count):
        at += source.expovariate(rate)
        if at > MOST_SECONDS:
            break
        prompt = round(500 * math.exp(source.gauss(-0.18, 0.6)))
        output = round(60 * math.exp(source.gauss(-0.18, 0.6)))
        requests.append((at, min(max(prompt, 1), 1500), min(max(output, 2), 300)))
    return requests


def start(args, setup: Setup, folder: pathlib.Path, *more) -> served.Server:
    flags = emulated.worker_flags(setup, folder) + emulated.router_flags(placing(args))
    for role in ("prefill", "decode", "mixed"):
        flags += [f"--{role}", setup.workers.get(role, 0)]
    return served.Server(args.bin, args.model, [*flags, *more])


def placing(args) -> emulated.Placing:
    return emulated.Placing(args.policy, not args.no_admission)


# --- the two --------------------------------------------------------------------------------------


async def play(server: served.Server, requests: list[tuple[float, int, int]]):
    """TTFT from the scheduled arrival and TPOT of each by the client's clock; None: it was refused,
    or failed. And how late the client was: the 90th percentile."""
    asked = [open_loop.Request(*request) for request in requests]
    await asyncio.sleep(emulated.PAIRING_SECONDS)
    found = await open_loop.play([server.port], server.model, asked, seed=1)
    outcomes = [(one.ttft, one.tpot) if one.whole else None for one in found]
    return outcomes, quantile([one.late for one in found], 0.9)


def summary(requests: int, outcomes: list[tuple[float, float] | None]) -> dict[str, float]:
    answered = [outcome for outcome in outcomes if outcome is not None]
    met = sum(ttft <= SLO["ttft"] and tpot <= SLO["tpot"] for ttft, tpot in answered)
    ttfts, tpots = (list(column) for column in zip(*answered))
    return {
        "met": met / requests,
        "ttft_p50": quantile(ttfts, 0.5),
        "ttft_p90": quantile(ttfts, 0.9),
        "tpot_p50": quantile(tpots, 0.5),
        "tpot_p90": quantile(tpots, 0.9),
        "answered": len(answered),
    }


def simulate(args, folder: pathlib.Path, *more) -> dict[str, float]:
    """The mean of several runs."""
    if "--log-decisions" not in more:
        more = (*more, "--seeds", f"1..{SIMULATED}")
    found = [
        {
            "met": run["joint_met"],
            "ttft_p50": run["ttft_s"]["p50"],
            "ttft_p90": run["ttft_s"]["p90"],
            "tpot_p50": run["tpot_s"]["p50"],
            "tpot_p90": run["tpot_s"]["p90"],
        }
        for run in emulated.simulate(args.bin, folder, placing(args), *more)
    ]
    return {figure: statistics.fmean(one[figure] for one in found) for figure in FIGURES}
