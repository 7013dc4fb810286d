"""Traffic that shifts from prompts to outputs and back, on workers whose roles follow it, against the
best fixed split of each phase."""

import dataclasses

from bench import open_loop
from bench.emulated import Placing, Setup
from bench.open_loop import Request, Traffic
from bench.real_cell import (
    Context,
    Measured,
    Part,
    measure,
    ms,
    percent,
    say,
    simulated_goodput,
)

WORKERS = 8
AUTO = Setup(f"{WORKERS} auto", {"auto": WORKERS}, 2048)


@dataclasses.dataclass(frozen=True)
class Phase:
    name: str
    traffic: Traffic
    rate: float


# Of SmolLM2's tokens one in 16 has an f, and one in 160 a V.
PROMPTS = Phase("prompts: 500 in, 24 out",
                Traffic(500, ("f",), ends=3041 / 49152, max_tokens=100), 40)  # fmt: skip
OUTPUTS = Phase("outputs: 100 in, 153 out",
                Traffic(100, ("V",), ends=307 / 49152, max_tokens=400), 45)  # fmt: skip
PHASES = (PROMPTS, OUTPUTS, PROMPTS)
OF_BEST, SETTLED_SECONDS = 0.9, 60  # goodput, at least; and when roles are where they stay
CANDIDATES = 2  # splits that the simulator finds best, each measured


def run(args, context: Context) -> Part:
    seconds = args.seconds or (20 if args.quick else 75)
    alone = min(seconds, 15 if args.quick else 45)
    requests = [
        request
        for i, phase in enumerate(PHASES)
        for request in draw(phase, seconds, args.seed + i, i * seconds)
    ]
    found = measure(context, AUTO, Placing(), requests, args.seed, watch=True)
    rows = []
    for i, phase in enumerate(PHASES):
        row = found.of(i * seconds, seconds) | settled(found, i * seconds, seconds)
        rows.append({"setup": AUTO.name, "phase": phase.name} | row)
        told(rows[-1])
    best = {
        phase: fixed(args, context, phase, alone, args.seed + i)
        for i, phase in enumerate(PHASES[:2])
    }
    part = text(rows, best, found, seconds, alone)
    failed = any(
        row["goodput"] < OF_BEST * max(other["goodput"] for other in best[phase])
        or row["failed"] > 0
        or row["settled"] > SETTLED_SECONDS
        for phase, row in zip(PHASES, rows)
    )
    return Part(part, rows + [row for found in best.values() for row in found], failed)


def draw(phase: Phase, seconds: float, seed: int, begin: float) -> list[Request]:
    return open_loop.draw(phase.traffic, phase.rate, seconds, seed, begin)


def told(row: dict) -> None:
    say(f"{row['setup']}, {row['phase']}: goodput {row['goodput']:.1f}, met {percent(row['met'])}, "
        f"failed {row['failed']}, busy {percent(row['busy'], 0)}")  # fmt: skip


def settled(found: Measured, begin: float, seconds: float) -> dict:
    """When roles were within one worker of what they were at the end of the phase, for good."""
    seen = [(at - begin, roles) for at, roles in found.roles if begin <= at < begin + seconds]
    last = seen[-1][1]
    away = [at for at, roles in seen if abs(roles["prefill"] - last["prefill"]) > 1]
    return {"settled": away[-1] if away else 0.0, "at_end": last}


def fixed(args, context: Context, phase: Phase, seconds: float, seed: int) -> list[dict]:
    requests = draw(phase, seconds, seed, 0)
    splits = [
        Setup(f"{n} prefill + {WORKERS - n} decode", {"prefill": n, "decode": WORKERS - n}, 2048)
        for n in range(1, WORKERS)
    ]
    simulated = {
        split.name: simulated_goodput(
            context, split, Placing(), phase.traffic, requests, seconds
        )
        for split in splits
    }  # fmt: skip
    say(f"{phase.name}, simulated: " + ", ".join(f"{n} {g:.1f}" for n, g in simulated.items()))
    rows = []
    for split in sorted(splits, key=lambda s: -simulated[s.name])[:CANDIDATES]:
        row = measure(context, split, Placing(), requests, seed).of(0, seconds)
        rows.append({"setup": split.name, "phase": phase.name,
                     "simulated": simulated[split.name]} | row)  # fmt: skip
        told(rows[-1])
    return rows


def text(rows: list[dict], best: dict[Phase, list[dict]], found: Measured, seconds: float,
         alone: float) -> str:  # fmt: skip
    out = [
        "## Roles that move",
        "",
        f"{AUTO.name} workers, one run of three phases of {seconds:g} s each, the first from workers that "
        f"are all mixed. Beside it the {CANDIDATES} fixed splits that the simulator finds best for a "
        f"phase, each with {alone:g} s of that phase alone. Met: of all requests. Wanted: "
        f"{percent(OF_BEST, 0)} of the best fixed split's goodput, the time in which roles move "
        f"included, roles that follow within {SETTLED_SECONDS} s, and no request that fails.",
        "",
        "| phase | workers | goodput | of the best | met | failed | TTFT p50, p99 | TPOT p50, p99 "
        "| roles at its end | there after |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for phase, row in zip(PHASES, rows):
        top = max(other["goodput"] for other in best[phase])
        ends = ", ".join(f"{n} {role}" for role, n in row["at_end"].items() if n)
        out.append(line(row, f"{percent(row['goodput'] / top)}", ends, f"{row['settled']:.0f} s"))
    for others in best.values():
        out += [line(row, "", "", "") for row in others]
    out += ["", f"Roles changed {found.flips} times."]
    return "\n".join(out) + "\n"


def line(row: dict, of_best: str, roles: str, after: str) -> str:
    return (
        f"| {row['phase']} | {row['setup']} | {row['goodput']:.1f} | {of_best} "
        f"| {percent(row['met'])} | {row['failed']} "
        f"| {ms(row['ttft_p50'])}, {ms(row['ttft_p99'])} ms "
        f"| {ms(row['tpot_p50'])}, {ms(row['tpot_p99'])} ms | {roles} | {after} |"
    )
