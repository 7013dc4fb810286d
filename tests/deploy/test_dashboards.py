"""Grafana's dashboards: current, well formed, and every query valid and of metrics that exist."""

import json
import re
import sys

import pytest
import queries
import yaml

sys.path.insert(0, str(queries.ROOT / "scripts"))
from observe import dashboards  # noqa: E402

BOARDS = queries.boards()
# Which Prometheus makes itself.
OF_PROMETHEUS = {"up"}


def test_the_dashboards_are_what_the_script_writes():
    made = {name: dashboards.as_text(board) for name, board in dashboards.all_dashboards().items()}
    assert {path.name: path.read_text() for path in queries.BOARDS} == made


def test_there_is_one_for_each_question():
    assert set(BOARDS) == {"slo", "waterfall", "transfer", "workers", "capacity"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_beside_each_other(name):
    taken = {}
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 5
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_a_unit_and_name_their_lines(name):
    for panel in BOARDS[name]["panels"]:
        assert panel["title"] and panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["legendFormat"] != "__auto", panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_variables_that_are_used_are_there(name):
    text = json.dumps(BOARDS[name]["panels"])
    used = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert used == {variable["name"] for variable in BOARDS[name]["templating"]["list"]}


def test_every_query_is_valid(promtool, tmp_path):
    """Each as a rule, which promtool parses."""
    found = queries.panel_queries()
    assert len(found) > 80
    rules = [
        {"record": f"panel:{number}", "expr": query.expr} for number, query in enumerate(found)
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)


def known_metrics() -> set[str]:
    """Of the documentation, which another test holds to the code; histograms with their parts."""
    pages = [path.read_text() for path in sorted((queries.ROOT / "docs").glob("*.md"))]
    documented = set(re.findall(r"`((?:vllm:|baton_|process_)[a-z0-9_]+)", "".join(pages)))
    parts = {f"{name}{part}" for name in documented for part in ("_bucket", "_sum", "_count")}
    return documented | parts | {rule["record"] for rule in queries.records()} | OF_PROMETHEUS


@pytest.mark.parametrize("what", ["panels", "rules"])
def test_metrics_that_are_asked_for_exist(what):
    exprs = {
        "panels": [query.expr for query in queries.panel_queries()],
        "rules": [rule["expr"] for rule in queries.all_rules()],
    }[what]
    asked = set().union(*(queries.metrics(expr) for expr in exprs))
    assert len(asked) > 15
    assert asked - known_metrics() == set()


def test_what_grafana_is_given_fits_together():
    folder = queries.GRAFANA / "provisioning"
    [source] = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus" and source["isDefault"]
    config = yaml.safe_load((queries.PROMETHEUS / "prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    [provider] = yaml.safe_load((folder / "dashboards/baton.yaml").read_text())["providers"]
    assert provider["type"] == "file" and provider["options"]["path"]
