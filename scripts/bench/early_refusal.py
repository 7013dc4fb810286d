"""When a request that cannot be served in time is refused: once its prompt is computed and decoding has
no room for it, when it comes by what decodes then, or when it comes by what it will find. Mooncake
(arXiv 2407.00079, section 7) compares the three. Writes a part of docs/benchmarks_policies.md and
docs/early_refusal.svg.

Time is virtual: the same seeds give the same figures everywhere.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import tempfile

from bench import page as pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks_policies.md"
PLOT = ROOT / "docs/early_refusal.svg"
WAYS = {
    "at-decode": "refused at decode",
    "now": "by the load of now",
    "foreseen": "by what is foreseen",
}
PANEL = (360, 130)  # pixels
POINTS = 240  # of a line, at most
AWAITED, DECODING, REFUSED = "#0072b2", "#d55e00", "#c8c8c8"


@dataclasses.dataclass
class Case:
    title: str
    cluster: str
    trace: str
    slo: str
    rate: float
    requests: int  # 0: as many as the trace has
    arrivals: str = "auto"
    every: float = 0.5  # seconds between two moments
    plotted: bool = True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baton", type=pathlib.Path, default=ROOT / "build/release/bin/baton")
    parser.add_argument("--mooncake", type=pathlib.Path, help="Mooncake's trace, if it is there")
    parser.add_argument("--seeds", default="1..5")
    parser.add_argument("--requests", type=int, default=10_000, help="of a run of made-up traffic")
    args = parser.parse_args()
    cases = [Case("Equal requests", "h200-6p2d", "fixed:3000,150", "ttft=3,tpot=0.012", 120,
                  args.requests)]  # fmt: skip
    if args.mooncake:
        trace, slo = str(args.mooncake), "ttft=30,tpot=0.012"
        cases += [
            Case("Mooncake's trace, a little too much", "h200-6p2d", trace, slo, 15, 0, "poisson"),
            Case("Mooncake's trace, twice that", "h200-6p2d", trace, slo, 30, 0, "poisson", 0.5, False),
        ]
    points = [{way: simulate(args, case, way) for way in WAYS} for case in cases]
    PLOT.write_text(plot([pair for pair in zip(cases, points) if pair[0].plotted]))
    PAGE.write_text(pages.with_part(PAGE.read_text(), "early-refusal", text(args, cases, points)))
    print(f"wrote {PAGE} and {PLOT}")
    return 0


def simulate(args, case: Case, way: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        figures = pathlib.Path(folder) / "figures.json"
        command = [
            args.baton, "sim", "--cluster", ROOT / f"deploy/clusters/{case.cluster}.yaml",
            "--trace", case.trace, "--slo", case.slo, "--rates", f"{case.rate:g}",
            "--arrivals", case.arrivals, "--requests", str(case.requests), "--seeds", args.seeds,
            "--admit-by", way, "--moments-every", f"{case.every:g}", "--json", figures,
        ]  # fmt: skip
        print(case.title, way, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(figures.read_text())["points"][0]


def total(point: dict, what: str) -> float:
    return sum(run[what] for run in point["runs"])


def met(point: dict) -> float:
    return sum(run["joint_met"] * run["requests"] for run in point["runs"])


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def row(name: str, point: dict, base: dict) -> str:
    refused, before = total(point, "refused"), total(base, "refused")
    fewer = "" if point is base else f" ({100 * (refused / before - 1):+.1f} %)"
    requests = total(point, "requests")
    swing = {key: mean(m["swing"][key] for m in point["moments"])
             for key in ["mean", "variation", "period_s", "regularity"]}  # fmt: skip
    ttft = mean(run["ttft_s"]["p99"] for run in point["runs"])
    return (
        f"| {name} | {100 * refused / requests:.1f} %{fewer} | {100 * met(point) / requests:.1f} % "
        f"| {100 * met(point) / max(requests - refused, 1):.1f} % | {ttft:.2f} s "
        f"| {swing['mean']:.0f} | {100 * swing['variation']:.0f} % "
        f"| {swing['regularity']:.2f} at {swing['period_s']:.1f} s |"
    )


def text(args, cases: list[Case], points: list[dict]) -> str:
    out = ["## When to refuse", ""]
    out.append("""\
Written by `scripts/bench_early_refusal`. Mooncake's paper (section 7) has three ways to admit under overload, and
so has the simulator (`--admit-by`): a request is refused *at decode*, when its prompt has been computed and
the step that it would join is too slow; when it comes, *by the load of now*, which does not see those that
still wait for their prompts; or *by what is foreseen*, as the router does. Placement is `goodput` in all
three, and each looks at TTFT when a request comes. "Kept": of the requests that were not refused. Sequences:
that decode, all together; how much they vary (standard deviation over mean), and how much they are what they
were so much earlier (the highest autocorrelation behind its first zero).

What is refused at decode has been computed in vain, and waited for. That costs requests where prefill has no
time to spare, as Mooncake found (14 % fewer refusals by what is foreseen); against it stands that what is
foreseen for many seconds is uncertain, and leaves room for it. So it depends on by how much too much is asked.
""")
    for case, by_way in zip(cases, points, strict=True):
        requests = case.requests or int(by_way["foreseen"]["runs"][0]["requests"])
        trace = case.trace if case.requests else pathlib.Path(case.trace).name
        out += [
            f"### {case.title}",
            "",
            f"`deploy/clusters/{case.cluster}.yaml`, `{trace}` at {case.rate:g} requests/s, `{case.slo}`; "
            f"{requests} requests a run, seeds {args.seeds}.",
            "",
            "| | refused | met both | kept | TTFT p99 | sequences | vary by | autocorrelation |",
            "|---|---|---|---|---|---|---|---|",
            *(row(WAYS[way], p, by_way["at-decode"]) for way, p in by_way.items()),
            "",
        ]
    out.append("![Requests awaited, decoding and refused](early_refusal.svg)")
    return "\n".join(out)


# --- the plot -------------------------------------------------------------------------------------


def plot(columns_of: list[tuple[Case, dict]]) -> str:
    """A column for each case, a panel for each way: the first run."""
    width, height = PANEL
    left, top, gap = 44, 58, 34
    columns = []
    for c, (case, by_way) in enumerate(columns_of):
        moments = {way: p["moments"][0] for way, p in by_way.items()}
        busy = {way: sum(1 for n in m["came"] if n) for way, m in moments.items()}
        shown = min(min(busy.values()), POINTS)
        most = max(max(m[k][:shown]) for m in moments.values() for k in ["prompts", "sequences"])
        x = left + c * (width + left + 16)
        columns.append(f"<text x='{x}' y='44' fill='#555'>{case.title}</text>")
        for r, (way, m) in enumerate(moments.items()):
            y = top + r * (height + gap)
            columns.append(panel(m, WAYS[way], (x, y), most, shown))
    all_width = left + len(columns_of) * (width + left + 16) - 28
    all_height = top + len(WAYS) * (height + gap) + 12
    legend = "".join(
        f"<rect x='{left + 150 * i}' y='{all_height - 18}' width='22' height='4' fill='{color}'/>"
        f"<text x='{left + 150 * i + 28}' y='{all_height - 12}'>{name}</text>"
        for i, (name, color) in enumerate(
            [
                ("awaited prompts", AWAITED),
                ("sequences that decode", DECODING),
                ("refused", REFUSED),
            ]
        )
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {all_width} {all_height}' "
        f"width='{all_width}' height='{all_height}' font-family='sans-serif' font-size='11' fill='#222'>\n"
        f"<rect width='{all_width}' height='{all_height}' fill='#fff'/>\n"
        f"<text x='{left}' y='22' font-size='15'>Under overload: requests that wait, decode and are "
        "refused</text>\n" + "\n".join(columns) + legend + "\n</svg>\n"
    )


def panel(moments: dict, title: str, at: tuple[int, int], most: float, shown: int) -> str:
    x, y = at
    width, height = PANEL
    across = width / max(shown - 1, 1)

    def line(key: str, color: str) -> str:
        steps = [f"{x + i * across:.0f} {y + height * (1 - v / most):.0f}"
                 for i, v in enumerate(moments[key][:shown])]  # fmt: skip
        return f"<path d='M{'L'.join(steps)}' fill='none' stroke='{color}' stroke-width='1.4'/>"

    tallest = max(max(moments["refused"][:shown]), 1)
    bars = "".join(
        f"M{x + i * across:.0f} {y + height}v-{height / 3 * n / tallest:.0f}"
        for i, n in enumerate(moments["refused"][:shown])
        if n
    )
    seconds = moments["every_s"] * (shown - 1)
    return (
        f"<path d='{bars}' stroke='{REFUSED}' stroke-width='{max(across, 1):.1f}'/>"
        + line("prompts", AWAITED)
        + line("sequences", DECODING)
        + f"<path d='M{x} {y}V{y + height}H{x + width}' fill='none' stroke='#444'/>"
        + f"<text x='{x + 6}' y='{y + 4}'>{title}</text>"
        + f"<text x='{x - 4}' y='{y + 10}' text-anchor='end'>{most:.0f}</text>"
        + f"<text x='{x}' y='{y + height + 14}'>0</text>"
        + f"<text x='{x + width}' y='{y + height + 14}' text-anchor='end'>{seconds:.0f} s</text>"
    )


if __name__ == "__main__":
    raise SystemExit(main())
