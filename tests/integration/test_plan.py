"""`baton plan` from the command line: what it prints and writes is what `baton sim` takes."""

import json
import re
import subprocess

import harness
import pytest

PLANS = harness.ROOT / "deploy/plans"
TRAFFIC = ["--trace", "fixed:500,20", "--slo", "ttft=0.5,tpot=0.06"]


def baton(*args: object) -> subprocess.CompletedProcess:
    command = [harness.BIN, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170)


def test_a_plan_is_a_cluster_that_the_simulator_takes(tmp_path):
    cluster, figures = tmp_path / "made.yaml", tmp_path / "made.json"
    made = baton(
        "plan", "--hardware", PLANS / "h200.yaml", "--model", PLANS / "models/llama3-70b.yaml",
        *TRAFFIC, "--gpus", 4, "--requests", 300, "--chunks", 512,
        "--write", cluster, "--json", figures,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "no idle machine could serve in time" in made.stdout
    assert "derived, not measured" in made.stdout
    plan = json.loads(figures.read_text())
    best = max(
        (plan[kind] for kind in ("split", "mixed") if plan[kind]), key=lambda p: p["goodput"]
    )
    assert best["gpus"] <= 4
    assert list(tmp_path.glob("made.llama3-70b-h200-tp*.yaml"))
    rate = best["goodput"]
    simulated = baton("sim", "--cluster", cluster, *TRAFFIC, "--rates", rate, "--requests", 1000,
                      "--json", tmp_path / "sim.json")  # fmt: skip
    assert simulated.returncode == 0, simulated.stderr
    [point] = json.loads((tmp_path / "sim.json").read_text())["points"]
    assert point["joint_met"]["mean"] > 0.8
    flags = re.search(r"^baton up (.*)$", made.stdout, re.M)[1].split()
    known = baton("up", "--help").stdout
    assert [flag for flag in flags if flag.startswith("--") and flag not in known] == []


def test_what_cannot_be_met_ends_with_one():
    none = baton("plan", "--hardware", PLANS / "h200-llama3-8b.yaml", "--trace", "fixed:100,10",
                 "--slo", "ttft=1,tpot=0.001")  # fmt: skip
    assert none.returncode == 1
    assert "100.00 % of the requests no idle machine" in none.stdout
    assert "no placement meets the targets" in none.stdout


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "--hardware"),
        (["--hardware", PLANS / "h200-llama3-8b.yaml"], "--trace"),
        (["--hardware", PLANS / "h200.yaml", "--trace", "fixed:10,10"], "no model"),
        (["--hardware", "nowhere.yaml", "--trace", "fixed:10,10"], "nowhere.yaml"),
        (["--gpus", 0], "--gpus"),
        (["--affinity", "near"], "--affinity"),
        (["--chunks", "100"], "--chunks"),
        (["--slo", "tpt=1"], "--slo"),
        (["--arrivals", "trace"], "arrival"),
    ],
)
def test_what_is_wrong_is_named(args, named):
    if args and args[0] != "--hardware":
        args = ["--hardware", PLANS / "h200-llama3-8b.yaml", "--trace", "fixed:10,10", *args]
    wrong = baton("plan", *args)
    assert wrong.returncode == 2
    assert named in wrong.stderr
