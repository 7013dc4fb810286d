"""Recording rules of attainment, and alerts on how fast the budget of misses is spent.

An objective of 0.99 leaves a budget of 1 % of the requests that may miss their targets. Spent at
a rate of 1, it lasts for as long as the objective is meant for; an alert fires when a multiple of
that rate is kept up over a long window, and is still there in a short one, so that it ends when the
cause does. Windows and rates are those of Google's SRE workbook, chapter 5.
"""

import argparse
import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/prometheus/rules"
SLO_FILE = "slo.yaml"
CLASS_NAME = re.compile(r"[a-z0-9_-]{1,32}")


@dataclasses.dataclass(frozen=True)
class Burn:
    rate: float
    short: str
    long: str
    severity: str

    @property
    def alert(self) -> str:
        return "BatonSloBurnsFast" if self.severity == "page" else "BatonSloBurnsSlowly"


BURNS = [
    Burn(14.4, "5m", "1h", "page"),
    Burn(6, "30m", "6h", "page"),
    Burn(3, "2h", "1d", "ticket"),
    Burn(1, "6h", "3d", "ticket"),
]
WINDOWS = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"]
DEFAULT_OBJECTIVE = 0.99
MIN_MISSED = 5

HEAD = """\
# Written by scripts/make_slo_rules, which also changes objectives; a test checks it.
# What it counts, and what its alerts ask of you: docs/slo.md, docs/operations.md.
groups:
"""

# The share of requests that met all their targets is of those that count: docs/slo.md.
COUNTED = 'baton_slo_requests_total{result!="cancelled"}'
MISSED = 'baton_slo_requests_total{result!~"met|cancelled"}'
MET = 'baton_slo_requests_total{result="met"}'


def rule(kind: str, name: str, expr: str, more: str = "") -> str:
    lines = "".join(f"          {line}\n" for line in expr.strip().splitlines())
    return f"      - {kind}: {name}\n        expr: |-\n{lines}{more}"


def group(name: str, rules: list[str]) -> str:
    return f"  - name: {name}\n    rules:\n" + "".join(rules)


def budget_rule(objective: float, by_class: dict[str, float]) -> str:
    """For each class that a router has: what may miss."""
    parts = [
        f'{1 - value:.6g} * group by (class) (baton_slo_requests_total{{class="{name}"}})'
        for name, value in sorted(by_class.items())
    ]
    parts.append(f"{1 - objective:.6g} * group by (class) (baton_slo_requests_total)")
    return rule("record", "baton:slo_error_budget:ratio", "\nor\n".join(parts))


def window_rules(window: str) -> list[str]:
    requests, missed = (f"baton:slo_{what}:increase{window}" for what in ("requests", "missed"))
    return [
        rule("record", requests, f"sum by (class) (increase({COUNTED}[{window}]))"),
        rule("record", missed, f"sum by (class) (increase({MISSED}[{window}]))"),
        rule("record", f"baton:slo_missed:ratio{window}", f"{missed} / {requests}"),
        rule("record", f"baton:slo_attainment:ratio{window}", f"1 - {missed} / {requests}"),
    ]


def summary_rules() -> list[str]:
    long = WINDOWS[-1]
    return [
        rule("record", "baton:slo_goodput:rate5m", f"sum by (class) (rate({MET}[5m]))"),
        rule(
            "record",
            f"baton:slo_budget_left:ratio{long}",
            f"1 - baton:slo_missed:ratio{long} / baton:slo_error_budget:ratio",
        ),
    ]


def burn_rule(burn: Burn, runbooks: str) -> str:
    def over(window: str) -> str:
        return f"baton:slo_missed:ratio{window} > {burn.rate:g} * baton:slo_error_budget:ratio"

    few = f"baton:slo_missed:increase{burn.long} >= {MIN_MISSED}"
    more = f"""\
        labels:
          severity: {burn.severity}
          burn: '{burn.rate:g}'
        annotations:
          summary: Class {{{{ $labels.class }}}} misses its targets
          description: >-
            {{{{ $value | humanizePercentage }}}} of the requests of class {{{{ $labels.class }}}}
            missed their targets in {burn.short}; there and in {burn.long} that is over
            {burn.rate:g} times what its objective leaves.
          runbook_url: {runbooks}#{burn.alert.lower()}
"""
    return rule("alert", burn.alert, f"{over(burn.short)}\nand {over(burn.long)}\nand {few}", more)


def slo_rules(objective: float, by_class: dict[str, float], runbooks: str) -> str:
    recorded = [budget_rule(objective, by_class)]
    for window in WINDOWS:
        recorded += window_rules(window)
    alerts = [burn_rule(burn, runbooks) for burn in BURNS]
    return (
        HEAD
        + group("baton-slo-records", recorded + summary_rules())
        + group("baton-slo-burn", alerts)
    )


# --- time that passes faster ---------------------------------------------------------------------

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")


def shorter(duration: str, scale: float) -> str:
    number, unit = DURATION.fullmatch(duration).groups()
    milliseconds = max(1, round(int(number) * SECONDS[unit] * 1000 / scale))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def scaled(text: str, scale: float) -> str:
    """All windows and waits divided by `scale`; what is recorded keeps its name."""
    if scale == 1:
        return text
    ranges = re.compile(r"(?<=\[)\d+(?:ms|s|m|h|d)(?=\])")
    waits = re.compile(r"(?<=^        for: )\d+(?:ms|s|m|h|d)$", re.M)
    for pattern in (ranges, waits):
        text = pattern.sub(lambda found: shorter(found[0], scale), text)
    return text


# --- the command ---------------------------------------------------------------------------------

RUNBOOKS = "docs/operations.md"


def objective_of(text: str) -> tuple[str, float]:
    """ "0.99", or "CLASS=0.99"."""
    name, _, value = text.rpartition("=")
    try:
        objective = float(value)
    except ValueError:
        objective = 0
    if not 0 < objective < 1:
        raise argparse.ArgumentTypeError(f"'{value}' is no share between 0 and 1, as 0.99 is")
    if name and not CLASS_NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"'{name}' is no name of a class")
    return name, objective


def positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be over 0")
    return value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make_slo_rules",
        description="Writes the rules of latency targets for Prometheus, beside the other rules.",
    )
    parser.add_argument(
        "--objective",
        type=objective_of,
        action="append",
        default=[],
        metavar="[CLASS=]SHARE",
        help=f"share of requests to meet their targets, of a class or of all others"
        f" (default: {DEFAULT_OBJECTIVE:g}); may be repeated",
    )
    parser.add_argument(
        "--scale",
        type=positive,
        default=1,
        help="divide all windows and waits by this, for tests; with --out",
    )
    parser.add_argument(
        "--runbooks",
        default=RUNBOOKS,
        metavar="URL",
        help=f"where people find docs/operations.md (default: {RUNBOOKS}); with --out",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=FOLDER,
        metavar="FOLDER",
        help="for all rule files (default: deploy/prometheus/rules)",
    )
    options = parser.parse_args(arguments)
    changed = options.scale != 1 or options.runbooks != RUNBOOKS
    if changed and options.out.resolve() == FOLDER:
        parser.error("--scale and --runbooks need --out: the other rules here stay as they are")
    return options


def warn(objectives: dict[str, float]):
    for name, objective in objectives.items():
        for burn in BURNS:
            if burn.rate * (1 - objective) >= 1:
                print(
                    f"make_slo_rules: the alert on {burn.rate:g} times the budget cannot fire for"
                    f" {name or 'the default'}: that is more than all requests",
                    file=sys.stderr,
                )


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    by_class = dict(options.objective)
    warn({"": DEFAULT_OBJECTIVE} | by_class)
    objective = by_class.pop("", DEFAULT_OBJECTIVE)
    options.out.mkdir(parents=True, exist_ok=True)
    files = {SLO_FILE: slo_rules(objective, by_class, options.runbooks)}
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name != SLO_FILE and options.out.resolve() != FOLDER:
            files[path.name] = path.read_text().replace(f"{RUNBOOKS}#", f"{options.runbooks}#")
    for name, text in files.items():
        (options.out / name).write_text(scaled(text, options.scale))
    return 0
