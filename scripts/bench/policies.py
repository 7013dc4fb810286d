"""Each placement policy, with and without admission, on simulated clusters: requests a second that meet
both targets, below and beyond what the cluster can serve, and how far that is from the most that
anybody could have met. Writes docs/benchmarks_policies.md.

Nothing here depends on how busy the machine is: time is virtual, and the same seeds give the same
figures everywhere.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import subprocess
import tempfile

from bench import page as pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks_policies.md"
POLICIES = ["goodput", "least_loaded", "power_of_two", "prefix", "kv_cost", "round_robin"]
# What is switched off, or worse than usual, with the default policy.
VARIANTS = {
    "goodput, prediction off": ["--predict=false"],
    "goodput, admitted by the load of now": ["--admit-by", "now"],
    "goodput, refused at decode": ["--admit-by", "at-decode"],
    "goodput, never local": ["--local-prefill-tokens=0"],
    "goodput, views of 200 ms": ["--load-every-ms", "200"],
    "goodput, views of 500 ms": ["--load-every-ms", "500"],
    "goodput, steps believed 20 % shorter": ["--believed", "0.8"],
    "goodput, steps believed 20 % longer": ["--believed", "1.2"],
}
# At these prices of a request the clairvoyant turns it away; the best of them counts.
PRICES = [0.7, 0.85, 1.0, 1.2]


@dataclasses.dataclass
class Workload:
    title: str
    cluster: str
    trace: str
    slo: str
    rates: list[float]  # requests a second: near, at and far beyond the limit


WORKLOADS = [
    Workload("prompts are the bottleneck", "h200-4p4d", "lengths:2000,200",
             "ttft=0.5,tpot=0.012", [80, 110, 150]),
    Workload("decoding is the bottleneck", "h200-4p4d", "lengths:500,400",
             "ttft=0.5,tpot=0.008", [110, 150, 200]),
    Workload("mixed workers", "h200-8m", "lengths:756,200",
             "ttft=0.25,tpot=0.02", [120, 180, 240, 300]),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baton", type=pathlib.Path, default=ROOT / "build/release/bin/baton")
    parser.add_argument("--requests", type=int, default=10_000, help="of a run")
    parser.add_argument("--seeds", default="1..5")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER",
                        help="what was simulated is kept here, and not simulated again")  # fmt: skip
    parser.add_argument("--output", type=pathlib.Path, default=PAGE)
    args = parser.parse_args()
    parts = [part(args, workload) for workload in WORKLOADS]
    before = args.output.read_text() if args.output.exists() else ""
    args.output.write_text(pages.with_parts_of(before, page(args, parts)))
    print(f"wrote {args.output}")
    return 0


def part(args, workload: Workload) -> str:
    rows = {}
    for policy in POLICIES:
        for admission in [True, False]:
            how = ["--policy", policy, f"--admission={str(admission).lower()}"]
            if policy == "goodput" and admission:
                how.append("--bound")
            name = policy if admission else f"{policy}, no admission"
            rows[name] = simulate(args, workload, how)
    for name, how in VARIANTS.items():
        rows[name] = simulate(args, workload, how)
    bounds = bounds_of(args, workload, rows["goodput"])
    head = " | ".join(f"{rate:g}/s" for rate in workload.rates)
    out = [
        f"## {workload.title[0].upper()}{workload.title[1:]}",
        "",
        f"`deploy/clusters/{workload.cluster}.yaml`, `{workload.trace}`, `{workload.slo}`.",
        "",
        f"| policy | {head} | kept at {workload.rates[-1]:g}/s | TTFT p50, p99 there |",
        "|" + "---|" * (len(workload.rates) + 3),
    ]
    for name, points in rows.items():
        cells = " | ".join(goodput_cell(p["goodput"]) for p in points)
        out.append(f"| {name} | {cells} | {kept(points[-1])} | {ttft(points[-1])} |")
    for name, cells in bounds.items():
        out.append(f"| *{name}* | {' | '.join(map(goodput_cell, cells))} | | |")
    for name, cells in bounds.items():
        shares = [p["goodput"]["mean"] / most["mean"]
                  for p, most in zip(rows["goodput"], cells, strict=True)]  # fmt: skip
        out.append(
            f"| goodput of *{name}* | {' | '.join(f'{100 * s:.0f} %' for s in shares)} | | |"
        )
    return "\n".join(out) + "\n"


def bounds_of(args, workload: Workload, plain: list[dict]) -> dict[str, list[dict]]:
    """What could have been, each with a mean and an interval by rate."""
    tried = [simulate(args, workload, ["--clairvoyant", f"{price:g}"]) for price in PRICES]
    tried.append(plain)
    return {
        "clairvoyant": [max((points[i]["goodput"] for points in tried), key=lambda g: g["mean"])
                        for i in range(len(workload.rates))],
        "bound without knowing lengths": [p["blind_bound"] for p in plain],
        "bound": [p["bound"] for p in plain],
    }  # fmt: skip


def simulate(args, workload: Workload, how: list[str]) -> list[dict]:
    rates = ",".join(f"{rate:g}" for rate in workload.rates)
    options = [
        "--trace", workload.trace, "--slo", workload.slo, "--rates", rates,
        "--requests", str(args.requests), "--seeds", args.seeds, *how,
    ]  # fmt: skip
    cluster = ROOT / f"deploy/clusters/{workload.cluster}.yaml"
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256("\n".join([workload.cluster, *options]).encode()).hexdigest()[:16]
        return run(args, cluster, options, args.keep / f"{key}.json")
    with tempfile.TemporaryDirectory() as folder:
        return run(args, cluster, options, pathlib.Path(folder) / "figures.json")


def run(args, cluster: pathlib.Path, options: list[str], figures: pathlib.Path) -> list[dict]:
    if not figures.exists():
        command = [args.baton, "sim", "--cluster", cluster, *options, "--json", figures]
        print(cluster.stem, " ".join(options), flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(figures.read_text())["points"]


def goodput_cell(goodput: dict) -> str:
    return f"{goodput['mean']:.1f} ± {goodput['half_width_95']:.1f}"


def kept(point: dict) -> str:
    """Of the requests that were accepted, how many got what they were promised."""
    accepted = sum(r["requests"] - r["refused"] for r in point["runs"])
    met = sum(r["joint_met"] * r["requests"] for r in point["runs"])
    return f"{100 * met / max(accepted, 1):.1f} %"


def ttft(point: dict) -> str:
    runs = point["runs"]
    mean = {q: sum(r["ttft_s"][q] for r in runs) / len(runs) for q in ["p50", "p99"]}
    return f"{1e3 * mean['p50']:.0f}, {1e3 * mean['p99']:.0f} ms"


def page(args, parts: list[str]) -> str:
    return f"""# Placement policies, simulated

Written by `scripts/bench_policies` ({args.requests} requests a run, seeds {args.seeds}): requests a second
that met both targets, with the 95 % interval over seeds; a request that was refused or failed missed.
The router, the schedulers and the hand-off are the server's ([simulator.md](simulator.md)); steps take the
times of a profile that was measured on an H200, prompts and outputs are log-normal and arrivals are
Poisson. "Kept": of the requests that were accepted, how many met both. What policies are:
[placement.md](placement.md).

Last in each table is what could have been. *Bound*: nobody could have met more who knew all arrivals and
lengths beforehand (`sim/cluster/bound.h` proves it); *without knowing lengths*: nor, on average and about,
who does not know how long answers will be, as no router does. *Clairvoyant*: what `goodput` met when those
were turned away as they came whom the bound would not serve, of several prices the best: somebody who
knows all can meet that many, by preferring short prompts and short answers.

{chr(10).join(parts)}"""


if __name__ == "__main__":
    raise SystemExit(main())
