"""Seeks the goodput of a plan by `baton sim`: quickly with one seed, then closely with all."""

import dataclasses
import enum
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time

import yaml

from bench import lengths
from bench.paper_plans import Plan, Workload

SHARE = 0.9
GRID = 1.05  # from one rate to the next, in the close search
MOST_EXTENSIONS = 8
IDLE = 0.01  # of the rate where searches start
SHORT_GROUPS, SHORT_SEEDS = 5, 4
# Student's t, two-sided 95 %, by degrees of freedom.
T95 = [math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]


class Kind(enum.Enum):
    CLOSE = "close"  # many requests and all seeds
    QUICK = "quick"  # some requests and one seed
    SHORT = "short"  # as few requests as the paper's runs had, and many seeds
    MORE = "more"  # as QUICK, for what is good to know


@dataclasses.dataclass
class Found:
    """Requests a second and GPU at which the share is met, a seed each; beside it, at about that
    rate, what is met of each target, and of both on an idle cluster."""

    per_gpu: list[float]
    ttft_met: float
    tpot_met: float
    idle_met: float

    def mean(self) -> float:
        return statistics.fmean(self.per_gpu)


def half_width(values: list[float]) -> float:
    """Of the 95 % interval of the mean."""
    n = len(values)
    return T95[n - 1] * statistics.stdev(values) / math.sqrt(n) if n > 1 else 0.0


def ratios(a: Found, b: Found) -> list[float]:
    return [x / y if y else math.inf for x, y in zip(a.per_gpu, b.per_gpu)]


def crossing(points: list[tuple[float, float]]) -> float | None:
    """The highest rate at which the share is still met, between two that were tried; None: not there.

    `points`: rate and what was met, by rate.
    """
    found = None
    for (low, met), (high, less) in zip(points, points[1:]):
        if met >= SHARE > less:
            found = low + (high - low) * (met - SHARE) / (met - less)
    return found


class Runs:
    """What was measured is kept in a file, and is not measured again. Used by several threads."""

    def __init__(self, baton, requests: int, quick: int, seeds: range, kept, minutes=math.inf):
        self.baton, self.requests, self.quick, self.seeds = baton, requests, quick, seeds
        self.kept = kept
        self.until = time.monotonic() + 60 * minutes
        self.folder = tempfile.TemporaryDirectory()
        self.lock = threading.Lock()
        self.found = json.loads(kept.read_text()) if kept and kept.exists() else {}

    def goodput(self, w: Workload, name: str, plan: Plan, kind: Kind, trace=None) -> Found | None:
        """None: it was not measured before, and the time is over."""
        key = f"{w.key}, {name}, {self.extent(w, plan, kind)}"
        if key not in self.found:
            if time.monotonic() > self.until:
                return None
            found = self.seek(w, key, plan, kind, trace or self.trace(w))
            print(f"{key}: {found.mean():.3f} requests/s per GPU", flush=True)
            with self.lock:
                self.found[key] = dataclasses.asdict(found)
                if self.kept:
                    self.kept.write_text(json.dumps(self.found, indent=1) + "\n")
        return Found(**self.found[key])

    def extent(self, w: Workload, plan: Plan, kind: Kind) -> str:
        if kind in (Kind.QUICK, Kind.MORE):
            return f"{self.quick} requests"
        if kind == Kind.SHORT:
            return f"{w.paper_prompts * plan.gpus()} requests, {SHORT_GROUPS} x {SHORT_SEEDS} seeds"
        return f"{self.requests} requests, seeds {self.seeds[0]}..{self.seeds[-1]}"

    def trace(self, w: Workload) -> str:
        path = pathlib.Path(self.folder.name) / f"{w.key}.csv"
        with self.lock:
            if not path.exists():
                lengths.write(path, lengths.drawn(w.means, 5000))
        return str(path)

    def seek(self, w: Workload, key: str, plan: Plan, kind: Kind, trace: str) -> Found:
        cluster = self.cluster(key, plan)
        gpus = plan.gpus()
        common = ["--cluster", str(cluster), "--trace", trace, "--slo", w.slo, *plan.flags]
        quick = [*common, "--requests", str(self.quick), "--seeds", "1..1"]
        idle = self.sim([*quick, "--rates", f"{IDLE * w.guess * gpus:g}"])["points"][0]
        rates, at = [0.0], idle
        if idle["joint_met"]["mean"] < SHARE:
            pass  # at no rate
        elif kind == Kind.SHORT:
            rates = self.short_searches(w, plan, common)
        else:
            rates, at = self.search([*quick, "--rates", f"{w.guess * gpus:g}"])
            if kind == Kind.CLOSE and rates[0]:
                rates, at = self.close_search(common, rates[0])
        return Found(
            [rate / gpus for rate in rates],
            at["ttft_met"]["mean"],
            at["tpot_met"]["mean"],
            idle["joint_met"]["mean"],
        )

    def search(self, flags: list[str]) -> tuple[list[float], dict]:
        figures = self.sim([*flags, "--find-goodput", str(SHARE)])
        best = figures["best_rate"] or 0.0
        at = [p for p in figures["points"] if p["rate"] == best] or figures["points"][:1]
        return [best], at[0]

    def short_searches(self, w: Workload, plan: Plan, common: list[str]) -> list[float]:
        """Runs as short as the paper's: of each rate several, whose mean counts."""
        flags = [*common, "--requests", str(w.paper_prompts * plan.gpus())]
        flags += ["--rates", f"{w.guess * plan.gpus():g}"]
        rates = []
        for group in range(SHORT_GROUPS):
            first = 1 + group * SHORT_SEEDS
            rates += self.search([*flags, "--seeds", f"{first}..{first + SHORT_SEEDS - 1}"])[0]
        return rates

    def close_search(self, common: list[str], about: float) -> tuple[list[float], dict]:
        """Rates around, until each seed has its crossing among them."""
        points: dict[float, dict] = {}
        steps = [-2, -1, 0, 1, 2]
        seeds = f"{self.seeds[0]}..{self.seeds[-1]}"
        while True:
            rates = [about * GRID**step for step in steps if about * GRID**step not in points]
            asked = ",".join(f"{rate:.9g}" for rate in rates)
            figures = self.sim(
                [*common, "--requests", str(self.requests), "--seeds", seeds, "--rates", asked]
            )
            points |= dict(zip(rates, figures["points"]))
            tried = sorted(points.items())
            found = [
                crossing([(rate, point["runs"][seed]["joint_met"]) for rate, point in tried])
                for seed in range(len(self.seeds))
            ]
            if None not in found or len(points) >= 5 + 2 * MOST_EXTENSIONS:
                break
            # Above, if any seed meets the share at the highest rate; below, if any does not at the lowest.
            runs = [point["runs"] for _, point in (tried[0], tried[-1])]
            low = any(run["joint_met"] < SHARE for run in runs[0])
            high = any(run["joint_met"] >= SHARE for run in runs[1])
            steps = ([min(steps) - 2, min(steps) - 1] if low else []) + steps
            steps += [max(steps) + 1, max(steps) + 2] if high else []
        mean = statistics.fmean(rate or 0.0 for rate in found)
        nearest = min(points, key=lambda rate: abs(rate - mean))
        return [rate or 0.0 for rate in found], points[nearest]

    def cluster(self, key: str, plan: Plan) -> pathlib.Path:
        folder = pathlib.Path(self.folder.name) / "".join(c if c.isalnum() else "-" for c in key)
        folder.mkdir(exist_ok=True)
        groups = []
        for i, group in enumerate(plan.workers):
            (folder / f"profile{i}.yaml").write_text(yaml.safe_dump(group["profile"]))
            groups.append(group | {"profile": f"profile{i}.yaml"})
        path = folder / "cluster.yaml"
        path.write_text(yaml.safe_dump({"workers": groups}))
        return path

    def sim(self, flags: list[str]) -> dict:
        with tempfile.NamedTemporaryFile(dir=self.folder.name, suffix=".json") as figures:
            command = [self.baton, "sim", "--jobs", "1", "--json", figures.name, *flags]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}")
            return json.loads(pathlib.Path(figures.name).read_text())
