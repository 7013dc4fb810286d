"""Every process is replaced in turn under load, and no client notices."""

import signal

import balancer
import harness
import pytest
import requests
from clients import Clients, EmulatedAsker

CLIENTS = 8
WORKERS = {
    "device": "emulated",
    "profile": harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml",
    "kv_gib": 1,
    "drain_seconds": 20,
}
# Longer than the balancer needs to notice: two checks, half a second apart.
DELAY = {"shutdown_delay_seconds": 3, "drain_seconds": 20}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180 * harness.PATIENCE),
    pytest.mark.skipif(
        balancer.PROGRAM is None, reason="haproxy is not installed (Debian's package haproxy)"
    ),
]


class Site:
    """Two routers behind a balancer, two workers of each kind."""

    def __init__(self, cluster: harness.Cluster, folder):
        self.cluster, self._folder = cluster, folder
        addresses = [f"{w.host}:{w.process.ports['rpc']}" for w in cluster.workers.values()]
        self._options = {
            "model": cluster.model,
            "workers": addresses,
            **harness.TAKING_TURNS,
            **DELAY,
        }
        self.routers = [self._start_router(f"router-{i}", 0) for i in range(2)]
        for router in self.routers:
            self._wait_ready(router)
        self.balancer = balancer.Balancer(folder, self.routers, cluster.model_name)

    def _start_router(self, name: str, port: int) -> harness.Process:
        options = self._options | {"listen": f"127.0.0.1:{port}"}
        router = harness.Process(name, "router", options, self._folder)
        router.wait_ready()
        return router

    @staticmethod
    def _wait_ready(router: harness.Process):
        url = f"http://127.0.0.1:{router.ports['http']}/ready"
        harness.wait_for(
            lambda: requests.get(url, timeout=5).status_code == 200, 20, f"{router.name} is ready"
        )

    def replace_router(self, i: int):
        old = self.routers[i]
        harness.wait_for(lambda: self.balancer.sees(old) == "UP", 10, f"{old.name} is up")
        old.popen.send_signal(signal.SIGTERM)
        harness.wait_for(lambda: self.balancer.sees(old) == "DOWN", 10, f"{old.name} is down")
        assert harness.is_listening(old.ports["http"]), "it refused before the balancer knew"
        assert old.popen.wait(40 * harness.PATIENCE) == 0
        self.routers[i] = new = self._start_router(old.name, old.ports["http"])
        self._wait_ready(new)
        harness.wait_for(lambda: self.balancer.sees(new) == "UP", 10, f"{new.name} is up again")

    def replace_worker(self, name: str):
        worker = self.cluster.workers[name]
        worker.process.popen.send_signal(signal.SIGTERM)
        assert worker.process.popen.wait(40 * harness.PATIENCE) == 0
        self.cluster.start_worker(name).wait_ready()
        harness.wait_for(self._all_are_ready, 20, f"both routers have {name} again")

    def _all_are_ready(self) -> bool:
        def ready(router: harness.Process) -> float:
            text = requests.get(f"http://127.0.0.1:{router.ports['http']}/metrics", timeout=5).text
            return harness.Metrics(text).sum("baton_router_workers", state="ready")

        return all(ready(router) == len(self.cluster.workers) for router in self.routers)

    def stop(self):
        self.balancer.stop()
        assert [router.stop(40) for router in self.routers] == [0, 0]


@pytest.fixture
def site(start_cluster, tiny, tmp_path):
    cluster = start_cluster(tiny, prefill=2, decode=2, **WORKERS)
    site = Site(cluster, tmp_path)
    yield site
    site.stop()


def test_no_request_fails_while_every_process_is_replaced(site):
    steps = [lambda name=name: site.replace_worker(name) for name in site.cluster.workers]
    steps += [lambda i=i: site.replace_router(i) for i in range(2)]
    answered = []
    asks = EmulatedAsker(site.balancer.url, site.balancer.model_name)
    with Clients(asks, CLIENTS) as clients:
        for step in steps:
            before = clients.answered
            step()
            answered.append(clients.answered - before)
    print("answers during each step:", answered)
    assert all(count > 0 for count in answered), answered
