"""What deploy/ asks of Prometheus: the queries of its rules and of its dashboards' panels."""

import json
import pathlib
import re
from typing import NamedTuple

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"
RULES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
BOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))

# A metric, and what chooses among its series.
SELECTOR = re.compile(r"((?:baton|vllm|process)[_:][\w:]+|\bup\b)(\{[^}]*\})?")


class Query(NamedTuple):
    where: str
    expr: str


def rules(path: pathlib.Path) -> list[dict]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def all_rules() -> list[dict]:
    return [rule for path in RULES for rule in rules(path)]


def alerts() -> list[dict]:
    return [rule for rule in all_rules() if "alert" in rule]


def records() -> list[dict]:
    return [rule for rule in all_rules() if "record" in rule]


def boards() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in BOARDS}


def panel_queries(rate_interval: str = "1m") -> list[Query]:
    """As Grafana sends them, with every model chosen."""
    found = []
    for name, board in boards().items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", rate_interval)
                expr = expr.replace("$model", ".*")
                found.append(Query(f"{name}: {panel['title']} {target['refId']}", expr))
    return found


def selectors(expr: str) -> list[str]:
    """The series that it is made of, without windows: 'name{...}'."""
    return [match[0] for match in SELECTOR.finditer(expr)]


def metrics(expr: str) -> set[str]:
    return {match[1] for match in SELECTOR.finditer(expr)}
