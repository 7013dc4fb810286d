"""A real Prometheus scrapes a real cluster: dashboards have data, faults fire their alerts."""

import itertools
import random
import threading
import time

import api
import harness
import pytest
import queries
import requests
import watch
import yaml

SCALE = 60  # an hour passes in a minute
RATE_INTERVAL = "10s"
ROUTER = {
    "slo_class": ["interactive: ttft=60s, tpot=60s", "hasty: ttft=1ms", "eager: ttft=800ms"],
    "default_slo_class": "interactive",
} | harness.ALL_HANDED_OFF  # fmt: skip
# Beside it a prompt's KV crosses in a second, not in a millisecond.
SLOW_LINK_US_PER_BYTE = 0.02
REFUSED = "slo_unattainable"
# Whose every step takes some milliseconds, so that nobody's first token comes within one.
WORKERS = {
    "device": "emulated",
    "profile": harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml",
    "kv_gib": 1,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        watch.PROGRAM is None, reason="prometheus is not installed (Debian's package prometheus)"
    ),
]


class Load:
    """Clients that ask, again and again, until it is stopped."""

    def __init__(
        self, cluster: harness.Cluster, clients: int, pause: float, headers=None, tokens=(50, 400)
    ):
        """`tokens`: of a prompt, from and to; beside what every other one shares."""
        self._cluster, self._pause, self._headers = cluster, pause, headers
        self._tokens = tokens
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: int):
        draw = random.Random(client)
        for turn in itertools.count():
            if self._stopped.wait(self._pause):
                return
            fresh = [draw.randrange(3, 300) for _ in range(draw.randrange(*self._tokens))]
            shared = list(range(3, 203)) if turn % 2 else []
            body = {"prompt": shared + fresh, "max_tokens": 12, "ignore_eos": True}
            try:
                api.post(self._cluster, "/v1/completions", body, headers=self._headers)
            except requests.RequestException:
                continue

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def cluster(start_shared_cluster, tiny):
    cluster = start_shared_cluster(tiny, ROUTER, prefill=1, decode=2, auto=1, **WORKERS)
    with Load(cluster, clients=3, pause=0.05):
        yield cluster


@pytest.fixture(scope="module")
def prometheus(cluster, tmp_path_factory):
    prometheus = watch.Prometheus(tmp_path_factory.mktemp("prometheus"), cluster, SCALE)
    yield prometheus
    prometheus.stop()


def wait_for_data(prometheus, wanted: list[queries.Query]):
    """All of them have had some, sooner or later."""
    missing = list(wanted)

    def all_have() -> bool:
        missing[:] = [query for query in missing if not prometheus.has_data(query.expr)]
        if missing:
            time.sleep(0.5)
        return not missing

    harness.wait_for(all_have, 40, lambda: "data for\n" + "\n".join(map(str, missing)))


def wait_until_fires(prometheus, alert: str, of: str = ""):
    harness.wait_for(
        lambda: prometheus.is_firing(alert, of),
        30,
        lambda: f"{alert} of '{of}'; these fire: {prometheus.firing()}",
    )


def wait_until_quiet(prometheus, *alerts: str):
    def firing() -> set:
        return {found for found in prometheus.firing() if found[0] in alerts}

    harness.wait_for(lambda: not firing(), 40, lambda: f"quiet: {firing()}")


def test_every_panel_and_rule_has_data(prometheus):
    panels = queries.panel_queries(RATE_INTERVAL)
    records = [queries.Query(rule["record"], rule["record"]) for rule in queries.records()]
    # A healthy cluster has nothing that an alert asks for, but all that it is made of.
    parts = [
        queries.Query(alert["alert"], selector)
        for alert in queries.alerts()
        for selector in queries.selectors(alert["expr"])
    ]
    assert len(panels) > 80 and len(records) > 20 and len(parts) > 20
    wait_for_data(prometheus, panels + records + parts)


def test_nobody_is_called_while_all_is_well(prometheus):
    assert prometheus.value('baton:slo_attainment:ratio5m{class="interactive"}') == 1
    assert {alert for alert, _ in prometheus.firing()} <= {"BatonPredictionsOff"}


def test_a_promise_that_cannot_be_kept_is_told_and_forgotten(cluster, prometheus):
    attainment = 'baton:slo_attainment:ratio5m{class="hasty"}'
    with Load(cluster, clients=1, pause=0.1, headers={"x-baton-slo-class": "hasty"}):
        wait_until_fires(prometheus, "BatonSloBurnsFast", "hasty")
        wait_until_fires(prometheus, "BatonRefuses", "slo_impossible")
        assert prometheus.value(attainment) < 0.1
        assert prometheus.value('baton:slo_budget_left:ratio3d{class="hasty"}') < 0
        assert not prometheus.is_firing("BatonSloBurnsFast", "interactive")
    relaxed = {"x-baton-slo-class": "hasty", "x-baton-slo-ttft-ms": "60000"}
    with Load(cluster, clients=1, pause=0.1, headers=relaxed):
        wait_until_quiet(prometheus, "BatonSloBurnsFast", "BatonRefuses")
        harness.wait_for(lambda: prometheus.value(attainment) == 1, 20, "hasty is met again")


def test_an_overload_is_told_and_forgotten(cluster, prometheus):
    """A prompt takes a sixth of a second: some in a row are in time, two dozen at once are not."""
    (panel,) = [
        query.expr
        for query in queries.panel_queries(RATE_INTERVAL)
        if "baton_router_refused_total" in query.expr and "overloaded" in query.expr
    ]

    def refusals() -> float:
        shown = prometheus.query(panel)
        return sum(float(s["value"][1]) for s in shown if s["metric"]["reason"] == REFUSED)

    harness.wait_for(lambda: refusals() == 0, 20, "the panel shows none")
    eager = {"x-baton-slo-class": "eager"}
    with Load(cluster, clients=24, pause=0.3, headers=eager, tokens=(3000, 3800)):
        wait_until_fires(prometheus, "BatonRefuses", REFUSED)
        assert refusals() > 0.5
        assert not prometheus.is_firing("BatonRefuses", "slo_impossible")
        # Who can wait, waits: nobody's promise is broken for those who cannot.
        interactive = 'baton:slo_attainment:ratio5m{class="interactive"}'
        harness.wait_for(lambda: prometheus.value(interactive) == 1, 20, "the others' are kept")
    wait_until_quiet(prometheus, "BatonRefuses")
    harness.wait_for(lambda: refusals() == 0, 20, "the panel shows none again")


def test_a_dead_worker_is_told_and_forgotten(cluster, prometheus):
    ready = 'sum(baton_router_workers{state="ready"})'
    everybody = len(cluster.workers)
    assert prometheus.value(ready) == everybody
    cluster.kill_worker("decode-1")
    wait_until_fires(prometheus, "BatonWorkerUnreachable")
    wait_until_fires(prometheus, "BatonDown")
    assert prometheus.value(ready) == everybody - 1
    assert prometheus.value('sum(up{job="baton-worker"})') == everybody - 1
    cluster.start_worker("decode-1").wait_ready()
    wait_until_quiet(prometheus, "BatonWorkerUnreachable", "BatonDown")
    harness.wait_for(lambda: prometheus.value(ready) == everybody, 10, "it is back")
    # What it was serving went on elsewhere: nobody's promise was broken.
    assert prometheus.value('baton:slo_attainment:ratio1h{class="interactive"}') == 1


def replace_worker(cluster, name: str, profile):
    worker = cluster.workers[name]
    assert worker.process.stop() == 0
    worker.options["profile"] = profile
    cluster.start_worker(name).wait_ready()


def test_a_slow_link_is_told_and_forgotten(cluster, prometheus, tmp_path):
    fast = WORKERS["profile"]
    slow = yaml.safe_load(fast.read_text())
    slow["link"]["byte_us"] = SLOW_LINK_US_PER_BYTE
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump(slow))
    (panel,) = [
        query.expr
        for query in queries.panel_queries(RATE_INTERVAL)
        if "0.95" in query.expr and "exposed_transfer_seconds" in query.expr
    ]
    readers = [name for name, worker in cluster.workers.items() if worker.role != "prefill"]
    harness.wait_for(lambda: prometheus.value(panel) < 0.1, 20, "the panel shows a fast link")
    for name in readers:
        replace_worker(cluster, name, tmp_path / "slow.yaml")
    wait_until_fires(prometheus, "BatonTransfersSlow")
    assert prometheus.value(panel) > 0.25
    for name in readers:
        replace_worker(cluster, name, fast)
    wait_until_quiet(prometheus, "BatonTransfersSlow")
    harness.wait_for(lambda: prometheus.value(panel) < 0.1, 20, "the panel is down again")
