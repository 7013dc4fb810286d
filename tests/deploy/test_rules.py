"""Prometheus' configuration and rules, by its own promtool where it is installed."""

import pathlib
import re
import sys

import pytest
import queries
import yaml

sys.path.insert(0, str(queries.ROOT / "scripts"))
from observe import slo_rules  # noqa: E402

TESTS = sorted((queries.ROOT / "tests/deploy/rules").glob("*.yaml"))
RUNBOOK_FILE = "docs/operations.md"


def named(path: pathlib.Path) -> str:
    return path.stem


def test_the_rules_of_targets_are_what_the_script_writes(tmp_path):
    assert slo_rules.main(["--out", str(tmp_path)]) == 0
    for path in queries.RULES:
        assert (tmp_path / path.name).read_text() == path.read_text()


def test_the_configuration_is_valid(promtool):
    said = promtool("check", "config", queries.PROMETHEUS / "prometheus.yaml")
    assert f"{len(queries.RULES)} rule files found" in said


@pytest.mark.parametrize("path", queries.RULES, ids=named)
def test_rules_are_valid(promtool, path):
    promtool("check", "rules", path)


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_alerts_fire_when_they_should_and_only_then(promtool, path):
    promtool("test", "rules", path)


def test_every_alert_has_a_case():
    cases = "".join(path.read_text() for path in TESTS)
    burns = {alert["alert"] for alert in queries.alerts() if "burn" in alert["labels"]}
    assert burns == {"BatonSloBurnsFast", "BatonSloBurnsSlowly"}
    others = {alert["alert"] for alert in queries.alerts()} - burns
    assert len(others) > 10
    assert {name for name in others if f'alertname="{name}"' not in cases} == set()


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_alert_says_what_to_do():
    known = anchors((queries.ROOT / RUNBOOK_FILE).read_text())
    for alert in queries.alerts():
        notes = alert["annotations"]
        assert notes["summary"] and notes["description"], alert["alert"]
        assert alert["labels"]["severity"] in ("page", "ticket")
        page, _, anchor = notes["runbook_url"].partition("#")
        assert page == RUNBOOK_FILE
        assert anchor == alert["alert"].lower()
        assert anchor in known, alert["alert"]


def test_every_runbook_has_an_alert():
    page = (queries.ROOT / RUNBOOK_FILE).read_text()
    sections = set(re.findall(r"^### (Baton\w+)$", page, re.M))
    assert sections == {alert["alert"] for alert in queries.alerts()}


def test_windows_and_rates_of_the_burn_alerts():
    alerts = [alert for alert in queries.alerts() if "burn" in alert["labels"]]
    seen = [
        (
            float(alert["labels"]["burn"]),
            *re.findall(r"missed:ratio(\w+)", alert["expr"]),
            alert["labels"]["severity"],
        )
        for alert in alerts
    ]
    assert seen == [
        (14.4, "5m", "1h", "page"),
        (6.0, "30m", "6h", "page"),
        (3.0, "2h", "1d", "ticket"),
        (1.0, "6h", "3d", "ticket"),
    ]


# --- the script ----------------------------------------------------------------------------------


def written(tmp_path, *options: str) -> str:
    assert slo_rules.main([*options, "--out", str(tmp_path)]) == 0
    return (tmp_path / "slo.yaml").read_text()


def test_scaled_rules_keep_names_and_lose_time(tmp_path, promtool):
    text = written(tmp_path, "--scale", "60")
    assert set(re.findall(r"\[(\w+)\]", text)) == {"5s", "30s", "60s", "120s", "360s", "1440s",
                                                   "4320s"}  # fmt: skip
    true = yaml.safe_load((queries.PROMETHEUS / "rules/slo.yaml").read_text())
    fast = yaml.safe_load(text)
    for slow_group, fast_group in zip(true["groups"], fast["groups"]):
        assert [r.get("record") for r in slow_group["rules"]] == [
            r.get("record") for r in fast_group["rules"]
        ]
    alerts = yaml.safe_load((tmp_path / "alerts.yaml").read_text())
    waits = {r["alert"]: r.get("for") for group in alerts["groups"] for r in group["rules"]}
    assert waits["BatonWorkerUnreachable"] == "5s"
    assert waits["BatonNoWorkers"] == "1s"
    for path in tmp_path.glob("*.yaml"):
        promtool("check", "rules", path)


@pytest.mark.parametrize(
    ("duration", "scale", "shorter"),
    [("5m", 60, "5s"), ("1m", 90, "667ms"), ("3d", 60, "4320s"), ("1s", 1e9, "1ms")],
)
def test_durations(duration, scale, shorter):
    assert slo_rules.shorter(duration, scale) == shorter


def test_a_class_has_an_objective_of_its_own(tmp_path, promtool):
    text = written(tmp_path, "--objective", "0.95", "--objective", "interactive=0.999")
    budget = yaml.safe_load(text)["groups"][0]["rules"][0]
    assert budget["expr"].splitlines() == [
        '0.001 * group by (class) (baton_slo_requests_total{class="interactive"})',
        "or",
        "0.05 * group by (class) (baton_slo_requests_total)",
    ]
    promtool("check", "rules", tmp_path / "slo.yaml")


def test_runbooks_lie_where_one_says(tmp_path):
    written(tmp_path, "--runbooks", "https://wiki.example/baton")
    urls = [
        rule["annotations"]["runbook_url"]
        for path in tmp_path.glob("*.yaml")
        for rule in queries.rules(path)
        if "alert" in rule
    ]
    assert len(urls) == len(queries.alerts())
    assert all(url.startswith("https://wiki.example/baton#baton") for url in urls)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--objective", "1"], "'1' is no share between 0 and 1"),
        (["--objective", "batch=many"], "'many' is no share between 0 and 1"),
        (["--objective", "Batch 1=0.9"], "'Batch 1' is no name of a class"),
        (["--scale", "60"], "need --out"),
        (["--runbooks", "https://wiki.example"], "need --out"),
        (["--scale", "0", "--out", "x"], "must be over 0"),
    ],
)
def test_what_cannot_be_is_refused(capsys, options, said):
    with pytest.raises(SystemExit) as end:
        slo_rules.main(options)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_an_alert_that_cannot_fire_is_told(tmp_path, capsys):
    written(tmp_path, "--objective", "batch=0.9")
    assert "14.4 times the budget cannot fire for batch" in capsys.readouterr().err
