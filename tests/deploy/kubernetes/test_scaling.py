"""The autoscaler's queries, evaluated by promtool: how many workers it would want."""

import json
import math
import shutil
import subprocess

import pytest
from manifests import rendered

POD = 'namespace="baton",pod="{}"'


def triggers(overlay: rendered.Overlay, pool: str) -> list[dict]:
    [scaled] = [o for o in overlay.all("ScaledObject") if o["metadata"]["name"] == pool]
    return [trigger["metadata"] for trigger in scaled["spec"]["triggers"]]


def evaluate(query: str, series: dict[str, str], folder) -> float | None:
    """After two minutes of samples every 15 s; None: no data."""
    rules = {"groups": [{"name": "a", "rules": [{"record": "wanted", "expr": query}]}]}
    (folder / "rules.yaml").write_text(json.dumps(rules))
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": "wanted", "eval_time": "2m", "exp_samples": []}],
    }
    checks = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": [test]}
    (folder / "test.yaml").write_text(json.dumps(checks))
    run = subprocess.run(["promtool", "test", "rules", folder / "test.yaml"],
                         capture_output=True, text=True)  # fmt: skip
    if run.returncode == 0:
        return None
    # promtool says what it found in place of nothing.
    said = (run.stdout + run.stderr).split("got:")[1]
    return float(said.split("}")[1].split()[0].strip('",[]'))


def wanted(overlay: rendered.Overlay, pool: str, series: dict[str, str], folder) -> int | None:
    """As the horizontal autoscaler does: each query's total by its threshold, and the most."""
    if not shutil.which("promtool"):
        pytest.skip("no promtool here; Debian's package prometheus has it")
    found = [
        (evaluate(trigger["query"], series, folder), float(trigger["threshold"]))
        for trigger in triggers(overlay, pool)
    ]
    counts = [math.ceil(value / threshold) for value, threshold in found if value is not None]
    return max(counts, default=None)


@pytest.fixture(scope="module")
def tcp() -> rendered.Overlay:
    return of("gpu-tcp")


@pytest.fixture(scope="module")
def rdma() -> rendered.Overlay:
    return of("gpu-rdma")


def of(name: str) -> rendered.Overlay:
    if not rendered.kubectl():
        pytest.skip(rendered.NO_KUBECTL)
    return rendered.render(name)


def router_says(pod: str, leads: int, **roles: int) -> dict[str, str]:
    of_pod = POD.format(pod)
    series = {f"baton_role_leader{{{of_pod}}}": f"{leads}x8"}
    for role, count in roles.items():
        series[f'baton_desired_workers{{{of_pod},role="{role}"}}'] = f"{count}x8"
    return series


def test_an_auto_pool_is_as_large_as_the_leading_router_says(tcp, tmp_path):
    one = router_says("baton-router-a", 1, prefill=3, decode=2, mixed=0)
    other = router_says("baton-router-b", 0, prefill=1, decode=1, mixed=0)
    assert wanted(tcp, "baton-auto", one | other, tmp_path) == 5


def test_two_leaders_are_not_added_up(tcp, tmp_path):
    one = router_says("baton-router-a", 1, prefill=3, decode=2)
    other = router_says("baton-router-b", 1, prefill=2, decode=3)
    assert wanted(tcp, "baton-auto", one | other, tmp_path) == 6


def test_another_cluster_s_routers_do_not_count(tcp, tmp_path):
    series = router_says("baton-router-a", 1, prefill=3)
    elsewhere = {name.replace('"baton"', '"other"'): values for name, values in series.items()}
    assert wanted(tcp, "baton-auto", elsewhere, tmp_path) is None


def test_prefill_grows_with_the_time_that_prompts_take(rdma, tmp_path):
    busy = {  # 15 s more every 15 s: all of the time
        f"vllm:request_prefill_time_seconds_sum{{{POD.format(f'baton-prefill-{i}')}}}": "0+15x8"
        for i in range(3)
    }
    idle_decode = {
        f"vllm:request_prefill_time_seconds_sum{{{POD.format('baton-decode-0')}}}": "0+15x8"
    }
    assert wanted(rdma, "baton-prefill", busy | idle_decode, tmp_path) == 4


@pytest.mark.parametrize(
    ("cache", "sequences", "workers"), [(0.9, 10, 3), (0.1, 60, 3), (0.1, 1, 1)]
)
def test_decode_grows_with_its_cache_or_its_sequences(rdma, tmp_path, cache, sequences, workers):
    series = {}
    for i in range(2):
        pod = POD.format(f"baton-decode-{i}")
        series[f"vllm:kv_cache_usage_perc{{{pod}}}"] = f"{cache}x8"
        series[f"vllm:num_requests_running{{{pod}}}"] = f"{sequences}x8"
    assert wanted(rdma, "baton-decode", series, tmp_path) == workers
