"""Router and workers started from YAML files, one a process, as docs/configuration.md shows it."""

import pathlib

import harness
import pytest
import requests

HOSTS = {"prefill": "127.0.0.2", "decode": "127.0.0.3", "router": "127.0.0.1"}


class Files:
    """Writes the files, and starts what they describe."""

    def __init__(self, model: pathlib.Path, folder: pathlib.Path):
        self.model = model
        self.folder = folder
        self.started: list[harness.Process] = []
        harness.write_private(folder / "keys", "a-key\n")

    def start(self, command: str, name: str, text: str) -> harness.Process:
        file = self.folder / f"{name}.yaml"
        file.write_text(f"# of {name}\nmodel: {self.model}\nmodel_name: by-a-file\n{text}")
        self.started.append(harness.Process(name, command, {"config": file}, self.folder))
        return self.started[-1]

    def worker(self, role: str, port: int = 0) -> harness.Process:
        text = f"role: {role}\nname: {role}-of-a-file\nlisten: '{HOSTS[role]}:{port}'\n"
        text += "metrics_listen: 127.0.0.1:0\nkv_gib: 0.05\nthreads: 1\nprefix_cache: no\n"
        return self.start("worker", role, text)

    def router(self, ports: dict[str, int]) -> harness.Process:
        workers = ", ".join(f"{HOSTS[role]}:{port}" for role, port in ports.items())
        text = f"listen: 127.0.0.1:0\nworkers: [{workers}]\n"
        return self.start("router", "router", text + f"api_key_file: {self.folder / 'keys'}\n")

    def stop(self):
        started, self.started = self.started, []
        assert [process.stop() for process in reversed(started)] == [0] * len(started)


@pytest.fixture
def files(baton_is_built, tiny, tmp_path):
    files = Files(tiny, tmp_path)
    yield files
    files.stop()


def answer(router: harness.Process) -> str:
    url = f"http://127.0.0.1:{router.ports['http']}"
    harness.wait_for(lambda: requests.get(url + "/ready").status_code == 200, 20, "ready")
    body = {"model": "by-a-file", "prompt": "pass it on", "max_tokens": 8, "ignore_eos": True}
    body |= {"temperature": 0}
    assert requests.post(url + "/v1/completions", json=body).status_code == 401
    answer = requests.post(
        url + "/v1/completions", json=body, headers={"Authorization": "Bearer a-key"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 8
    return answer.json()["choices"][0]["text"]


def test_in_any_order(files):
    workers = {role: files.worker(role) for role in ["prefill", "decode"]}
    ports = {role: worker.wait_ready()["rpc"] for role, worker in workers.items()}
    router = files.router(ports)
    router.wait_ready()
    text = answer(router)
    log = workers["decode"].log.read_text()
    assert "[decode-of-a-file]" in log and "paired with worker" in log
    files.stop()

    router = files.router(ports)
    router.wait_ready()
    for role in ["decode", "prefill"]:
        files.worker(role, ports[role]).wait_ready()
    assert answer(router) == text


def test_a_flag_wins_over_the_file(files):
    worker = files.folder / "worker.yaml"
    worker.write_text(f"model: {files.model}\nrole: prefill\nname: of-the-file\n")
    options = {"config": worker, "role": "mixed", "listen": "127.0.0.1:0"}
    options |= {"metrics_listen": "127.0.0.1:0", "kv_gib": 0.05}
    process = harness.Process("worker", "worker", options, files.folder)
    files.started.append(process)
    metrics = process.wait_ready()["metrics"]
    text = requests.get(f"http://127.0.0.1:{metrics}/metrics").text
    assert "vllm:num_requests_running" in text
    assert "[of-the-file] mixed worker listens" in process.log.read_text()
