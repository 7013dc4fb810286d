"""The pods of the Kubernetes demo, as processes: they serve, and their probes tell the truth."""

import pathlib
import shutil
import signal
import subprocess
import time

import harness
import pytest
import requests
from pods import container, placed, rendered

KEYS = ["key-of-one", "key-of-another"]
# Both are valid while one takes the other's place.
OLD, NEW = "0123456789abcdef" * 4, "fedcba9876543210" * 4
# Runs the rest of its arguments where two files stand for those of the system.
OWN_NAMES = [
    "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
    'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"',
    "sh",
]  # fmt: skip


class Pods:
    """The demo's router and workers with the manifests' own arguments, but for addresses, files and
    the model."""

    def __init__(self, model: pathlib.Path, folder: pathlib.Path):
        self.overlay = rendered.render("cpu-demo")
        self.folder = folder
        self.files = {"model": str(model)}
        self.processes: dict[str, harness.Process] = {}
        self.write("keys", KEYS)

    def write(self, name: str, lines: list[str]) -> str:
        file = self.folder / name
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o440)  # as Kubernetes mounts it
        return str(file)

    def workload(self, name: str) -> dict:
        return self.overlay.one("Deployment" if name == "router" else "StatefulSet")

    def start(self, name: str, secrets: list[str], within=(), ip=None, **instead):
        """`ip`: the pod's own address, where it has the ports of the manifests; else free ones."""
        secret_file = self.write(f"{name}-secret", secrets)
        changes = self.files | {"secret_file": secret_file} | instead
        args = placed(self.overlay, self.workload(name), self.folder, name, **changes)
        options = dict(arg.removeprefix("--").split("=", 1) for arg in args[1:])
        for key in ("listen", "metrics-listen"):
            if key in options:
                options[key] = options[key].replace("127.0.0.1", ip) if ip else "127.0.0.1:0"
        self.processes[name] = harness.Process(name, args[0], options, self.folder, within=within)
        self.processes[name].wait_ready()

    def start_worker(self, name: str, secrets: list[str], **options):
        self.start(name, secrets, threads=1, kv_gib=0.05, **options)

    def start_router(self, secrets: list[str], **options):
        keys = str(self.folder / "keys")
        free = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
        self.start("router", secrets, api_key_file=keys, **free, **options)

    def probe(self, name: str, kind: str) -> int:
        """The status that the node would see."""
        get = container(self.workload(name))[f"{kind}Probe"]["httpGet"]
        port = self.processes[name].ports[get["port"]]
        return requests.get(f"http://127.0.0.1:{port}{get['path']}", timeout=10).status_code

    def ask(self, key: str) -> int:
        url = f"http://127.0.0.1:{self.processes['router'].ports['http']}/v1/completions"
        body = {"model": "tiny", "prompt": "The baton", "max_tokens": 8}
        headers = {"Authorization": f"Bearer {key}"}
        return requests.post(url, json=body, headers=headers, timeout=60).status_code

    def router_metrics(self) -> harness.Metrics:
        url = f"http://127.0.0.1:{self.processes['router'].ports['metrics']}/metrics"
        return harness.Metrics(requests.get(url, timeout=10).text)

    def kill(self):
        for process in self.processes.values():
            process.kill()


@pytest.fixture
def pods(tiny, tmp_path, baton_is_built):
    if not rendered.kubectl():
        pytest.skip(rendered.NO_KUBECTL)
    running = Pods(tiny, tmp_path)
    yield running
    running.kill()


def test_the_demo_serves_and_its_probes_tell_the_truth(pods):
    workers = ["baton-auto-0", "baton-auto-1"]
    # In mid-rotation: some have the new secret first, and one has not heard of it.
    pods.start_worker(workers[0], [NEW, OLD])
    for kind in ("startup", "readiness", "liveness"):
        assert pods.probe(workers[0], kind) == 200  # without a router or a peer
    pods.start_worker(workers[1], [OLD])
    workers_at = [f"127.0.0.1:{worker.ports['rpc']}" for worker in pods.processes.values()]
    pods.start_router([OLD, NEW], workers=workers_at)
    harness.wait_for(lambda: pods.probe("router", "startup") == 200, 20, "the router has workers")
    assert pods.probe("router", "readiness") == pods.probe("router", "liveness") == 200
    assert [pods.ask(key) for key in (*KEYS, "another")] == [200, 200, 401]
    for name in workers:
        assert pods.processes[name].stop() == 0
    # It stays in the Service, where requests may wait for a worker.
    harness.wait_for(lambda: pods.probe("router", "startup") == 503, 20, "it lost its workers")
    assert pods.probe("router", "readiness") == pods.probe("router", "liveness") == 200
    # It is told to end: until the Service knows, it serves on.
    router = pods.processes["router"]
    router.popen.send_signal(signal.SIGTERM)
    harness.wait_for(lambda: "draining" in router.log.read_text(), 5, "it has heard")
    time.sleep(1)
    assert pods.probe("router", "readiness") == pods.probe("router", "liveness") == 200
    assert pods.ask("another") == 401
    assert router.popen.wait(30 * harness.PATIENCE) == 0


def why_no_names_of_our_own() -> str:
    if not shutil.which("unshare"):
        return "unshare: not installed"
    tried = subprocess.run(
        [*OWN_NAMES, "/dev/null", "/dev/null", "true"], capture_output=True, text=True
    )
    return tried.stderr.strip()


def test_workers_are_found_by_the_name_that_the_manifests_have(pods):
    """One that comes late, a second, one that comes back at another address, and none."""
    if why := why_no_names_of_our_own():
        pytest.skip(f"no names of our own can be had: {why}")
    hosts, order = pods.folder / "hosts", pods.folder / "nsswitch.conf"
    order.write_text("hosts: files\n")  # no name server is asked
    [place] = pods.overlay.config(pods.workload("router"))["workers"]
    name = place.split(":")[1]

    def workers_are(*addresses: str):
        hosts.write_text("".join(f"{address} {name}\n" for address in addresses))

    def ready(count: int, connecting: int = 0):
        def as_wished():
            metrics = pods.router_metrics()
            found = [metrics.sum("baton_router_workers", state=s) for s in ("ready", "connecting")]
            return found == [count, connecting]

        harness.wait_for(as_wished, 20, lambda: pods.router_metrics().text)

    workers_are()
    pods.start_router([OLD], within=[*OWN_NAMES, hosts, order])
    assert pods.probe("router", "startup") == 503
    pods.start_worker("baton-auto-0", [OLD], ip="127.77.0.1")
    workers_are("127.77.0.1")
    ready(1)
    assert pods.ask(KEYS[0]) == 200
    pods.start_worker("baton-auto-1", [OLD], ip="127.77.0.2")
    workers_are("127.77.0.1", "127.77.0.2", "127.77.0.9")
    ready(2, connecting=1)
    # Forgotten by the name while it serves: it stays. Gone: it is not dialled any more.
    workers_are("127.77.0.1")
    ready(2)
    assert pods.processes["baton-auto-1"].stop() == 0
    ready(1)
    workers_are()
    assert pods.processes["baton-auto-0"].stop() == 0
    ready(0)
    pods.start_worker("baton-auto-0", [OLD], ip="127.77.0.3")
    workers_are("127.77.0.3")
    ready(1)
    assert pods.ask(KEYS[0]) == 200
    assert pods.processes["router"].stop() == 0
