"""A router and its workers, each a process of its own that can be pinned to a core."""

import json
import os
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.request

READY_SECONDS = 60
SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.M)


class Process:
    def __init__(self, name: str, command: list, log_folder: pathlib.Path):
        self.name = name
        ready, told = os.pipe()
        with open(log_folder / f"{name}.log", "wb") as log:
            self.popen = subprocess.Popen(
                [*map(str, command), "--ready-fd", str(told)],
                pass_fds=[told],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"},
            )
        os.close(told)
        with os.fdopen(ready) as said:
            line = said.readline()  # it ends without one if the process does
        if not line:
            raise RuntimeError(f"{name} did not start; see {log_folder / name}.log")
        self.ports = {key: int(port) for key, port in json.loads(line).items()}

    def pin(self, core: int) -> None:
        for task in os.listdir(f"/proc/{self.popen.pid}/task"):
            os.sched_setaffinity(int(task), {core})

    def metrics(self) -> dict[str, float]:
        port = self.ports.get("metrics") or self.ports["http"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return {name: float(value) for name, value in SAMPLE.findall(answer.read().decode())}

    def stop(self) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(40)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Started:
    """What a `with` starts by _start() and ends by __exit__(), also where only a part came up."""

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self


def model_of(port: int) -> str:
    """The first model that a router serves."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as answer:
        return json.load(answer)["data"][0]["id"]


class Cluster(Started):
    """One worker of each role, with one thread each."""

    def __init__(self, name: str, baton: pathlib.Path, model: pathlib.Path, roles: list[str],
                 log_folder: pathlib.Path):  # fmt: skip
        self.name, self.baton, self.model_path, self.roles = name, baton, model, roles
        self.log_folder = log_folder
        self.workers: dict[str, Process] = {}
        self.router: Process | None = None

    def _start(self) -> None:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        for role in self.roles:
            command = [self.baton, "worker", "--role", role, "--name", role, "--threads", 1,
                       "--model", self.model_path, "--log-level", "warn"]  # fmt: skip
            self.workers[role] = Process(role, command, self.log_folder)
        addresses = [f"127.0.0.1:{worker.ports['rpc']}" for worker in self.workers.values()]
        command = [self.baton, "router", "--model", self.model_path, "--listen", "127.0.0.1:0",
                   "--log-level", "warn", "--workers", *addresses]  # fmt: skip
        self.router = Process(f"router-{self.name}", command, self.log_folder)
        self.port = self.router.ports["http"]
        self._wait_ready()
        self.model = model_of(self.port)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def __exit__(self, *_) -> None:
        for process in [self.router, *self.workers.values()]:
            if process is not None:
                process.stop()

    def pin(self, front: int, **cores: int) -> None:
        """The router's core, and each worker's."""
        self.router.pin(front)
        for role, core in cores.items():
            self.workers[role].pin(core)

    def metrics(self) -> dict[str, dict[str, float]]:
        processes = {"router": self.router, **self.workers}
        return {name: process.metrics() for name, process in processes.items()}


def mean_between(before: dict[str, float], after: dict[str, float], histogram: str,
                 labels: str = "") -> float | None:  # fmt: skip
    """Of what a histogram saw between two scrapes of one process; `labels`: a part of them."""

    def grown(suffix: str) -> float:
        return sum(
            value - before.get(name, 0.0)
            for name, value in after.items()
            if name.split("{")[0] == histogram + suffix and labels in name
        )

    count = grown("_count")
    return grown("_sum") / count if count else None


def growth(before: dict[str, float], after: dict[str, float], counter: str, labels: str = ""):
    return sum(
        value - before.get(name, 0.0)
        for name, value in after.items()
        if name.split("{")[0] == counter and labels in name
    )
