"""DistServe's comparisons, simulated: how many requests a second and GPU are served in time by its
placements, by the vLLM of its time, and by the best mixed plan. Writes docs/benchmarks_papers.md.

Nothing here depends on how busy the machine is: time is virtual, and the same seeds give the same
figures everywhere.
"""

import argparse
import concurrent.futures
import csv
import dataclasses
import pathlib
import subprocess

from bench import lengths, paper_page, paper_plans
from bench.paper_plans import FCFS, PROMISE, WORKLOADS, Plan, Workload
from bench.paper_runs import Found, Kind, Runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks_papers.md"
SLOWER = [0.8, 1.2]  # all steps, of the profiles
MORE_MEMORY = 0.95  # for weights and KV, instead of 0.9
UNCUT_CONTEXT = 32_768
SHORT_ANSWER = 8  # tokens
CUT_PROMPT = 1850  # so that long answers have positions, too


@dataclasses.dataclass
class Line:
    name: str
    plan: Plan
    kind: Kind = Kind.QUICK
    trace: str | None = None  # else the workload's
    slo: str | None = None  # else the workload's


def main() -> int:
    args = options()
    seeds = range(args.seeds[0], args.seeds[1] + 1)
    many = args.requests, args.quick_requests
    runs = Runs(args.baton, *many, seeds, args.figures, args.minutes)
    chosen = [w for w in WORKLOADS if not args.only or w.key in args.only]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        lines = [(w, line) for w in chosen for line in first(runs, w, args.sharegpt)]
        lines.sort(key=lambda of: list(Kind).index(of[1].kind))  # what matters most comes first
        measured: dict[str, dict] = {w.key: {} for w in chosen}

        def submit(more: bool) -> None:
            for w, line in lines:
                if (line.kind == Kind.MORE) == more:
                    measured[w.key][line.name] = pool.submit(measure, runs, w, line)

        submit(more=False)
        for w in chosen:
            second(pool, runs, w, measured[w.key])
        submit(more=True)
        results = [(w, {name: f.result() for name, f in measured[w.key].items()}) for w in chosen]
    args.output.write_text(paper_page.page(results, runs, commit()))
    print(f"wrote {args.output}")
    return 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baton", type=pathlib.Path, default=ROOT / "build/release/bin/baton")
    parser.add_argument("--requests", type=int, default=10_000, help="of a run, in close searches")
    parser.add_argument("--quick-requests", type=int, default=2000, help="of a run, in all others")
    parser.add_argument("--seeds", type=seed_range, default="1..5", help="of close searches: A..B")
    parser.add_argument("--only", action="append", choices=[w.key for w in WORKLOADS])
    parser.add_argument("--jobs", type=int, default=2, help="plans at once")
    parser.add_argument(
        "--sharegpt", type=pathlib.Path, help="lengths of ShareGPT, for a further comparison (CSV)"
    )
    parser.add_argument(
        "--figures",
        type=pathlib.Path,
        help="keeps what was measured, for another run to go on from",
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start nothing new after so many"
    )
    parser.add_argument("--output", type=pathlib.Path, default=PAGE)
    return parser.parse_args()


def seed_range(text: str) -> tuple[int, int]:
    first, last = map(int, text.split(".."))
    return first, last


def first(runs: Runs, w: Workload, sharegpt: pathlib.Path | None) -> list[Line]:
    """What needs no other result."""
    more = [*sensitivity(w), *of_sharegpt(runs, w, sharegpt), *of_longbench(runs, w)]
    for line in more:
        line.kind = Kind.MORE
    promise = Line("split, goodput", paper_plans.split(w, flags=PROMISE))
    return [*headlines(w), *scan(w), promise, *short(w), *more]


def measure(runs: Runs, w: Workload, line: Line) -> Found | None:
    if line.slo:
        w = dataclasses.replace(w, slo=line.slo)
    return runs.goodput(w, line.name, line.plan, line.kind, line.trace)


def headlines(w: Workload) -> list[Line]:
    return [
        Line("split", paper_plans.split(w), Kind.CLOSE),
        Line("vLLM", paper_plans.baseline(w), Kind.CLOSE),
        Line("split, published times", paper_plans.published_split(w), Kind.CLOSE),
        Line("vLLM, published times", paper_plans.published_baseline(w), Kind.CLOSE),
    ]


def short(w: Workload) -> list[Line]:
    """As long as the paper's runs."""
    plans = {line.name: line.plan for line in headlines(w)}
    return [Line(f"{name}, short", plan, Kind.SHORT) for name, plan in plans.items()]


def scan(w: Workload) -> list[Line]:
    return [
        Line(scanned(tp, chunk), tuned(w, tp, chunk))
        for tp in w.mixed_tps
        for chunk in paper_plans.BUDGETS
    ]


def scanned(tp: int, chunk: int) -> str:
    return f"mixed, TP {tp}, " + (f"chunks of {chunk}" if chunk else "whole prompts")


def tuned(w: Workload, tp: int, chunk: int, flags=FCFS) -> Plan:
    """As many mixed workers as the split's GPUs are enough for, and one at least."""
    return paper_plans.mixed(w, tp, max(1, w.split_gpus() // tp), chunk, flags=flags)


def sensitivity(w: Workload) -> list[Line]:
    out = []
    for slower in SLOWER:
        out.append(Line(f"split, steps x {slower}", paper_plans.split(w, slower)))
        out.append(Line(f"vLLM, steps x {slower}", paper_plans.baseline(w, slower)))
    for slo in w.other_slos:
        out.append(Line(f"split, {slo}", paper_plans.split(w), slo=slo))
        out.append(Line(f"vLLM, {slo}", paper_plans.baseline(w), slo=slo))
        how = f"{slo}, published times"
        out.append(Line(f"split, {how}", paper_plans.published_split(w), slo=slo))
        out.append(Line(f"vLLM, {how}", paper_plans.published_baseline(w), slo=slo))
    return out


def of_sharegpt(runs: Runs, w: Workload, sharegpt: pathlib.Path | None) -> list[Line]:
    if w.means != paper_plans.SHAREGPT:
        return []
    how = f"{100 * MORE_MEMORY:.0f} % of memory"
    uncut = f"lengths:{w.means.prompt:.0f},{w.means.answer:.0f}"
    out = []
    for name, plan in [("split", paper_plans.split(w)), ("vLLM", paper_plans.baseline(w))]:
        out.append(Line(f"{name}, {how}", paper_plans.with_memory(w, plan, MORE_MEMORY)))
        out.append(Line(f"{name}, {uncut}", longer(plan), trace=uncut))
    if sharegpt:
        trace = str(pathlib.Path(runs.folder.name) / "sharegpt.csv")
        lengths.write(pathlib.Path(trace), short_enough(sharegpt))
        out.append(Line("split, Sarathi's ShareGPT", paper_plans.split(w), trace=trace))
        out.append(Line("vLLM, Sarathi's ShareGPT", paper_plans.baseline(w), trace=trace))
    return out


def of_longbench(runs: Runs, w: Workload) -> list[Line]:
    """Half of the answers a few words, as to questions, half long, as summaries; of the same mean."""
    if w.means != paper_plans.LONGBENCH:
        return []
    trace = pathlib.Path(runs.folder.name) / "longbench-halves.csv"
    long = round(2 * w.means.answer) - SHORT_ANSWER
    pairs = lengths.drawn(w.means, 2000)
    kinds = [SHORT_ANSWER, long] * len(pairs)
    lengths.write(trace, [(min(p, CUT_PROMPT), a) for (p, _), a in zip(pairs, kinds)])
    how = f"half of the answers {SHORT_ANSWER} tokens"
    return [
        Line(f"split, {how}", paper_plans.split(w), trace=str(trace)),
        Line(f"vLLM, {how}", paper_plans.baseline(w), trace=str(trace)),
    ]


def longer(plan: Plan) -> Plan:
    """For prompts beyond what the model has positions for."""
    groups = [group | {"max_context": UNCUT_CONTEXT} for group in plan.workers]
    return Plan(groups, plan.flags)


def short_enough(path: pathlib.Path) -> list[tuple[int, int]]:
    """Of the file's requests those for which OPT has positions."""
    with path.open() as file:
        rows = [
            (int(row["num_prefill_tokens"]), int(row["num_decode_tokens"]))
            for row in csv.DictReader(file)
        ]
    return [(prompt, answer) for prompt, answer in rows if prompt + answer < lengths.POSITIONS]


def second(pool, runs: Runs, w: Workload, found: dict) -> None:
    """Adds the best of the mixed plans, closely, and with the default policy."""
    tried = [
        (of.mean(), tp, chunk)
        for tp in w.mixed_tps
        for chunk in paper_plans.BUDGETS
        if (of := found[scanned(tp, chunk)].result())
    ]
    if not tried:
        return
    _, tp, chunk = max(tried)
    for name, flags, kind in [("best", FCFS, Kind.CLOSE), ("best, goodput", PROMISE, Kind.QUICK)]:
        plan = tuned(w, tp, chunk, flags)
        line = f"{scanned(tp, chunk)}, {name}"
        found[name] = pool.submit(runs.goodput, w, line, plan, kind)
    found["best is"] = pool.submit(lambda: scanned(tp, chunk))


def commit() -> str:
    done = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
