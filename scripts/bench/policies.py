"""Each placement policy, with and without admission, on one simulated cluster: requests a second that
meet both targets, below and beyond what the cluster can serve. Writes docs/benchmarks_policies.md.

Nothing here depends on how busy the machine is: time is virtual, and the same seeds give the same
figures everywhere.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks_policies.md"
POLICIES = ["goodput", "least_loaded", "power_of_two", "prefix", "kv_cost", "round_robin"]
# What is switched off, or worse than usual, with the default policy.
VARIANTS = {
    "goodput, by the load of now": ["--predict=false"],
    "goodput, never local": ["--local-prefill-tokens=0"],
    "goodput, views of 500 ms": ["--load-every-ms", "500"],
}


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
             "ttft=0.25,tpot=0.02", [120, 180, 240]),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baton", type=pathlib.Path, default=ROOT / "build/release/bin/baton")
    parser.add_argument("--requests", type=int, default=10_000, help="of a run")
    parser.add_argument("--seeds", default="1..5")
    parser.add_argument("--output", type=pathlib.Path, default=PAGE)
    args = parser.parse_args()
    parts = [part(args, workload) for workload in WORKLOADS]
    args.output.write_text(page(args, parts))
    print(f"wrote {args.output}")
    return 0


def part(args, workload: Workload) -> str:
    rows = []
    for policy in POLICIES:
        for admission in [True, False]:
            how = ["--policy", policy, f"--admission={str(admission).lower()}"]
            name = policy if admission else f"{policy}, no admission"
            rows.append((name, simulate(args, workload, how)))
    for name, how in VARIANTS.items():
        rows.append((name, simulate(args, workload, how)))
    head = " | ".join(f"{rate:g}/s" for rate in workload.rates)
    out = [
        f"## {workload.title[0].upper()}{workload.title[1:]}",
        "",
        f"`deploy/clusters/{workload.cluster}.yaml`, `{workload.trace}`, `{workload.slo}`.",
        "",
        f"| policy | {head} | kept at {workload.rates[-1]:g}/s | TTFT p50, p99 there |",
        "|" + "---|" * (len(workload.rates) + 3),
    ]
    for name, points in rows:
        cells = " | ".join(goodput_cell(p) for p in points)
        out.append(f"| {name} | {cells} | {kept(points[-1])} | {ttft(points[-1])} |")
    return "\n".join(out) + "\n"


def simulate(args, workload: Workload, how: list[str]) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        figures = pathlib.Path(folder) / "figures.json"
        rates = ",".join(f"{rate:g}" for rate in workload.rates)
        command = [
            args.baton, "sim", "--cluster", ROOT / f"deploy/clusters/{workload.cluster}.yaml",
            "--trace", workload.trace, "--slo", workload.slo, "--rates", rates,
            "--requests", str(args.requests), "--seeds", args.seeds, "--json", figures, *how,
        ]  # fmt: skip
        print(" ".join(map(str, command[4:])), flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(figures.read_text())["points"]


def goodput_cell(point: dict) -> str:
    goodput = point["goodput"]
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

{chr(10).join(parts)}"""


if __name__ == "__main__":
    raise SystemExit(main())
