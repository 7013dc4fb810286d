"""Workers that a router learns of from the Kubernetes API, or from one that speaks like it."""

import os
import signal
import subprocess

import api
import certificates
import harness
import pytest
from clients import Clients, EmulatedAsker
from stand_ins.kubernetes_api import ApiServer

WORKERS = 3
EMULATED = {
    "device": "emulated",
    "profile": harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml",
    "kv_gib": 1,
    "drain_seconds": 20,
}


class Watched:
    """Workers, a router that names none of them, and the API server that does."""

    def __init__(self, cluster: harness.Cluster, folder):
        self.cluster = cluster
        self.ports = [w.process.ports["rpc"] for w in cluster.workers.values()]
        # As in a cluster, where pods know the API server by its address.
        made = certificates.Authority(folder, "cluster-ca").issue("api", (), ["127.0.0.1"])
        self.token_file = folder / "token"
        self.token_file.write_text("token-one\n")
        self.server = ApiServer(made["tls_cert"], made["tls_key"], "token-one")
        self.options = {
            "model": cluster.model,
            "listen": "127.0.0.1:0",
            "workers": ["k8s:baton/pool:rpc"],
            "kubernetes_api": f"127.0.0.1:{self.server.port}",
            "kubernetes_token_file": self.token_file,
            "kubernetes_ca_file": made["tls_ca"],
            **harness.TAKING_TURNS,
        }
        self._folder = folder
        self._first, cluster.router = cluster.router, None

    def start_router(self):
        self.cluster.router = harness.Process("router", "router", self.options, self._folder)
        self.cluster.router.wait_ready()

    def start(self, *ports: int):
        """The API server has these, and the router all of them."""
        self.server.put(*ports)
        self.start_router()
        self.wait_workers(len(ports))
        harness.wait_for(lambda: self.server.open == 1, 10, "it watches")

    def num(self, state: str) -> int:
        return int(self.cluster.metrics().sum("baton_router_workers", state=state))

    def wait_workers(self, count: int):
        """So many are ready, and no other is dialled."""
        harness.wait_for(
            lambda: (self.num("ready"), self.num("connecting")) == (count, 0), 30, self.tail
        )

    def num_up(self) -> int:
        return int(self.cluster.metrics().sum("baton_router_discovery_services", state="up"))

    def wait_up(self, value: int):
        harness.wait_for(lambda: self.num_up() == value, 60, self.tail)

    def wait_log(self, text: str):
        harness.wait_for(lambda: text in self.log(), 40, self.tail)

    def wait_seen(self):
        """All that the API server has told so far, the router has read."""
        self.server.bookmark()
        told, before = self.server.version, len(self.server.watches)
        self.server.break_watches()
        harness.wait_for(lambda: len(self.server.watches) > before, 20, self.tail)
        assert self.server.watches[-1] == told

    def log(self) -> str:
        return self.cluster.router.log.read_text()

    def tail(self) -> str:
        return harness.tail(self.cluster.router.log)

    def is_served(self) -> bool:
        body = {"prompt": "on", "max_tokens": 2}
        return api.post(self.cluster, "/v1/completions", body).status_code == 200

    def stop(self):
        router, self.cluster.router = self.cluster.router, self._first
        try:
            if router:
                assert router.stop() == 0
        finally:
            self.server.stop()


@pytest.fixture(scope="module")
def workers(start_shared_cluster, tiny):
    """For tests that do not harm them."""
    return start_shared_cluster(tiny, mixed=WORKERS)


@pytest.fixture
def watched(workers, tmp_path):
    watched = Watched(workers, tmp_path)
    yield watched
    watched.stop()


@pytest.fixture
def mortal(start_cluster, tiny, tmp_path):
    """The same with workers of its own."""
    watched = Watched(start_cluster(tiny, mixed=WORKERS, **EMULATED), tmp_path)
    yield watched
    watched.stop()


def test_no_request_fails_while_workers_come_and_go(mortal):
    server, ports = mortal.server, mortal.ports
    mortal.start(ports[0])
    asks = EmulatedAsker(mortal.cluster.url, mortal.cluster.model_name)
    with Clients(asks, 6) as clients:
        clients.wait_more(6)
        server.put(ports[1])
        mortal.wait_workers(2)
        clients.wait_more(6)
        server.break_watches()
        server.put(ports[2])  # while nobody watches, perhaps
        mortal.wait_workers(3)
        assert server.lists == 1, "a watch that broke off goes on from where it was"
        clients.wait_more(6)
        # As a pod that is deleted: it is terminating, drains, ends, and is gone.
        server.put(ports[0], terminating=True)
        leaving = mortal.cluster.workers["mixed-0"].process
        leaving.popen.send_signal(signal.SIGTERM)
        clients.wait_more(6)
        assert leaving.popen.wait(40 * harness.PATIENCE) == 0
        server.delete(ports[0])
        mortal.wait_workers(2)
        clients.wait_more(6)
        server.expire(by_status=False)
        clients.wait_more(6)
    for name in ("mixed-1", "mixed-2"):
        assert mortal.cluster.metrics(name).sum("baton_step_rows_total") > 0, name


def test_a_worker_that_is_gone_stays_while_it_is_connected(mortal):
    mortal.start(*mortal.ports)
    mortal.server.delete(mortal.ports[0])
    mortal.wait_seen()
    assert mortal.num("ready") == 3
    # Nothing more is told of it, and nobody goes on dialling.
    mortal.cluster.kill_worker("mixed-0")
    mortal.wait_workers(2)


@pytest.mark.parametrize("by_status", [True, False], ids=["status", "event"])
def test_a_version_that_has_expired_is_listed_again(watched, by_status):
    server, ports = watched.server, watched.ports
    watched.start(*ports[:2])
    server.bookmark()
    server.expire(by_status)
    server.put(*ports[2:])
    watched.wait_workers(3)
    assert server.lists == 2


def test_a_watch_goes_on_after_a_bookmark(watched):
    watched.start(*watched.ports)
    watched.wait_seen()
    assert watched.server.lists == 1


def test_what_the_api_server_refuses_is_told_and_workers_stay(watched):
    server = watched.server
    watched.start(*watched.ports)
    server.token = "token-two"
    server.break_watches()
    watched.wait_log("(401)")
    watched.wait_up(0)
    assert watched.num("ready") == 3
    assert watched.is_served()
    # The file is read again for each question.
    server.forbidden = True
    new = watched.token_file.with_suffix(".new")
    new.write_text("token-two")
    os.replace(new, watched.token_file)
    watched.wait_log("(403)")
    assert "a Role in the namespace baton" in watched.log()
    server.forbidden = False
    watched.wait_up(1)
    assert watched.num("ready") == 3
    assert "token-one" not in watched.log() and "token-two" not in watched.log()


def test_workers_stay_while_the_api_server_is_away(watched):
    server, ports = watched.server, watched.ports
    watched.start(*ports[:2])
    server.go_away()
    watched.wait_log("stay as they were")
    watched.wait_up(0)
    assert watched.num("ready") == 2
    assert watched.is_served()
    server.put(*ports[2:])
    server.away = False
    watched.wait_workers(3)
    watched.wait_up(1)
    assert "are known again" in watched.log()
    assert server.lists == 1


def test_what_cannot_be_dialled_is_told_and_counted(watched):
    watched.start(*watched.ports[:2])
    watched.server.put(watched.ports[2], port_name="other")
    watched.wait_log("1 are left out: ports: none is named 'rpc'")
    assert watched.cluster.metrics().sum("baton_router_discovery_left_out") == 1
    assert watched.num("ready") == 2
    watched.server.put(watched.ports[2])
    watched.wait_workers(3)
    assert watched.cluster.metrics().sum("baton_router_discovery_left_out") == 0


def test_another_authority_is_not_believed(watched, tmp_path):
    other = certificates.Authority(tmp_path, "another-ca")
    watched.options["kubernetes_ca_file"] = other.folder / "ca.crt"
    watched.server.put(*watched.ports)
    watched.start_router()
    watched.wait_log("no TLS with the API server")
    assert watched.server.lists == 0
    assert not watched.cluster.is_ready()


def test_outside_of_a_cluster_the_server_must_be_named(tiny, baton_is_built):
    env = {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")}
    options = {"model": tiny, "workers": ["k8s:baton/pool:rpc"]}
    command = [harness.BIN, "router", *harness.flags(options)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert run.returncode == 2
    assert "--kubernetes-api" in run.stderr
