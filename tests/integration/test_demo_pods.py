"""The pods of the Kubernetes demo, as processes: they serve, and their probes tell the truth."""

import pathlib

import harness
import pytest
import requests
from pods import container, placed, rendered

KEYS = ["key-of-one", "key-of-another"]
# Both are valid while one takes the other's place.
OLD, NEW = "0123456789abcdef" * 4, "fedcba9876543210" * 4


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

    def start(self, name: str, secrets: list[str], **instead):
        secret_file = self.write(f"{name}-secret", secrets)
        changes = self.files | {"secret_file": secret_file} | instead
        args = placed(self.overlay, self.workload(name), self.folder, **changes)
        options = dict(arg.removeprefix("--").split("=", 1) for arg in args[1:])
        options |= {key: "127.0.0.1:0" for key in ("listen", "metrics-listen") if key in options}
        self.processes[name] = harness.Process(name, args[0], options, self.folder)
        self.processes[name].wait_ready()

    def start_worker(self, name: str, secrets: list[str]):
        self.start(name, secrets, threads=1, kv_gib=0.05)

    def start_router(self, secrets: list[str]):
        workers = [f"127.0.0.1:{p.ports['rpc']}" for p in self.processes.values()]
        keys = str(self.folder / "keys")
        self.start("router", secrets, listen="127.0.0.1:0", workers=workers, api_key_file=keys)

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
    pods.start_router([OLD, NEW])
    harness.wait_for(lambda: pods.probe("router", "startup") == 200, 20, "the router has workers")
    assert pods.probe("router", "readiness") == pods.probe("router", "liveness") == 200
    assert [pods.ask(key) for key in (*KEYS, "another")] == [200, 200, 401]
    for name in workers:
        assert pods.processes[name].stop() == 0
    # It stays in the Service, and says itself what is wrong.
    harness.wait_for(lambda: pods.probe("router", "startup") == 503, 20, "it lost its workers")
    assert pods.probe("router", "readiness") == pods.probe("router", "liveness") == 200
    assert pods.ask(KEYS[0]) == 503
    assert pods.processes["router"].stop() == 0
