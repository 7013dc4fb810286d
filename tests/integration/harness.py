"""Starts real Baton processes, watches them, and checks that they leave nothing behind."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

import requests
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BATON_TEST_BIN", ROOT / "build/release/bin/baton"))
# Sanitizers are slow; every deadline is stretched by this.
PATIENCE = float(os.environ.get("BATON_TEST_PATIENCE", "1"))
# Set on a GPU beside BATON_DEVICE=cuda: KV crosses by this, whatever the transport.
READ_ON_DEVICE = os.environ.get("BATON_KV_FROM") == "device"


def names_of(transport: str) -> tuple[str, ...]:
    """What baton_kv_peer_up may say where workers of one host were given this transport."""
    if READ_ON_DEVICE:
        return ("cuda_ipc",)
    return {"shm": ("posix", "sysv", "cma", "shm"), "tcp": ("tcp",)}[transport]


def wait_for(condition, seconds: float, what):
    """Polls until condition() is true; returns its value. `what`: words, or what gives them."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.01)


def write_private(path: pathlib.Path, text: str):
    """A file of secrets: nobody else may read it."""
    path.touch(mode=0o600)
    path.write_text(text)


def flags(options: dict) -> list[str]:
    """{"max_context": 64, "workers": [a, b]} as command-line flags."""
    args = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            args.append(f"{flag}={str(value).lower()}")
        elif isinstance(value, list):
            args += [flag, *map(str, value)]
        else:
            args += [flag, str(value)]
    return args


class Process:
    """One Baton process; its ready line tells the ports that it listens on."""

    def __init__(
        self,
        name: str,
        command: str,
        options: dict,
        log_folder: pathlib.Path,
        env=None,
        within: Sequence[str] = (),
    ):
        """`within`: a command that runs the rest of its arguments, in its own place."""
        self.name = name
        self.log = log_folder / f"{name}.log"
        read_end, write_end = os.pipe()
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(
                [*within, BIN, command, *flags(options), "--ready-fd", str(write_end)],
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | (env or {}),
                start_new_session=True,
            )
        os.close(write_end)
        self._ready_fd = read_end
        self.ports: dict[str, int] = {}

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_ready(self, seconds: float = 30) -> dict[str, int]:
        line = b""
        deadline = time.monotonic() + seconds * PATIENCE
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([self._ready_fd], [], [], left)[0]
            part = os.read(self._ready_fd, 4096) if readable else b""
            assert part, f"{self.name} did not start:\n{self.log.read_text()[-4000:]}"
            line += part
        self._close_ready()
        self.ports = {key: int(port) for key, port in json.loads(line).items()}
        return self.ports

    def _close_ready(self):
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        self._close_ready()

    def stop(self, seconds: float = 15) -> int:
        """SIGTERM, then its exit status; fails if it does not end in time."""
        self._close_ready()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            log = self.log.read_text()[-4000:]
            raise AssertionError(f"{self.name} did not end:\n{log}") from None

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def sockets(self) -> int:
        count = 0
        for fd in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += os.readlink(fd).startswith("socket:")
        return count


@dataclasses.dataclass
class Worker:
    role: str
    name: str
    options: dict
    process: Process | None = None
    host: str = "127.0.0.1"
    within: Sequence[str] = ()


class Metrics:
    """One scrape."""

    def __init__(self, text: str):
        self.text = text
        self.families = {f.name: f for f in text_string_to_metric_families(text)}

    def samples(self, name: str) -> list:
        return [s for f in self.families.values() for s in f.samples if s.name == name]

    def sum(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples(name)
            if all(sample.labels.get(key) == value for key, value in labels.items())
        )

    def has(self, name: str) -> bool:
        return bool(self.samples(name))


# For a router: every answer of two tokens or more is handed over, however short its prompt.
ALL_HANDED_OFF = {"local_prefill_tokens": 0}
# For a router: each worker gets its share, however fast it is believed to be; all is handed over.
TAKING_TURNS = {"policy": "round_robin"}


class Cluster:
    """A router and its workers, each a process of its own, on free ports."""

    def __init__(
        self, model: pathlib.Path, log_folder: pathlib.Path, router_options=None, env=None
    ):
        self.model = model
        self.log_folder = log_folder
        self.router_options = router_options or {}
        self.env = env or {}
        self.workers: dict[str, Worker] = {}
        self.router: Process | None = None
        self._shm: set[str] = set()

    def start(self, prefill=0, decode=0, mixed=0, auto=0, **options):
        """Options are the workers'; one that is a dict has a value for each role."""
        counts = {"prefill": prefill, "decode": decode, "mixed": mixed, "auto": auto}
        for role, count in counts.items():
            for i in range(count):
                self._add_worker(role, f"{role}-{i}", options)
        for worker in self.workers.values():
            worker.process.wait_ready()
        addresses = [f"{w.host}:{w.process.ports['rpc']}" for w in self.workers.values()]
        router = {"model": self.model, "listen": "127.0.0.1:0", "workers": addresses}
        self.router = Process(
            "router", "router", router | self.router_options, self.log_folder, self.env
        )
        self.router.wait_ready()
        self.wait_ready()
        return self

    def _add_worker(self, role: str, name: str, options: dict):
        defaults = {"threads": 1, "kv_gib": 0.05, "log_level": "info"}
        own = {k: v[role] if isinstance(v, dict) else v for k, v in options.items()}
        worker = Worker(role, name, {"role": role, "name": name, **defaults, **own})
        self.workers[name] = worker
        self.start_worker(name)

    def start_worker(self, name: str):
        """Starts a worker, again at its old address if it had one."""
        worker = self.workers[name]
        old = worker.process.ports if worker.process else {}
        options = {
            "model": self.model,
            "listen": f"{worker.host}:{old.get('rpc', 0)}",
            "metrics_listen": f"{worker.host}:{old.get('metrics', 0)}",
        }
        worker.process = Process(
            name, "worker", options | worker.options, self.log_folder, self.env, worker.within
        )
        return worker.process

    def kill_worker(self, name: str):
        self._note_shared_memory()
        self.workers[name].process.kill()

    def _note_shared_memory(self):
        running = [p.pid for p in self.processes() if p.popen.poll() is None]
        self._shm |= shared_memory_of(running)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return self.router.ports["http"]

    @functools.cached_property
    def model_name(self) -> str:
        return requests.get(self.url + "/v1/models", timeout=5).json()["data"][0]["id"]

    def is_ready(self) -> bool:
        try:
            return requests.get(self.url + "/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def wait_ready(self, seconds: float = 20):
        wait_for(self.is_ready, seconds, "/ready answers 200")

    def metrics(self, name: str = "router") -> Metrics:
        if name == "router":
            url = self.url
        else:
            worker = self.workers[name]
            url = f"http://{worker.host}:{worker.process.ports['metrics']}"
        answer = requests.get(url + "/metrics", timeout=5 * PATIENCE)
        assert answer.status_code == 200
        return Metrics(answer.text)

    def processes(self) -> list[Process]:
        workers = [w.process for w in self.workers.values() if w.process]
        return [p for p in [self.router, *workers] if p]

    def stop(self):
        """Ends everything and checks that nothing of it is left."""
        problems = []
        self._note_shared_memory()
        for process in self.processes():
            killed = process.popen.poll() == -signal.SIGKILL
            try:
                status = process.stop()
                if status != 0 and not killed:
                    problems.append(f"{process.name} ended with {status}: {tail(process.log)}")
            except AssertionError as error:
                problems.append(str(error))
        problems += left_behind(self.processes(), self._shm)
        assert not problems, "\n".join(problems)


def tail(log: pathlib.Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def shared_memory_of(pids: list[int]) -> set[str]:
    """Files in /dev/shm that these processes have mapped or open; other programs have theirs."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
                found.add(line.split(maxsplit=5)[-1])
            for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(os.readlink(fd))
    return {name for name in found if is_shared_memory(name)}


def is_shared_memory(name: str) -> bool:
    # What was unlinked already cannot stay.
    return name.startswith("/dev/shm/") and not name.endswith(" (deleted)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(program: subprocess.Popen, seconds: float):
    """Of one that is not ours: asked to, and killed if it does not."""
    program.terminate()
    try:
        program.wait(seconds * PATIENCE)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def left_behind(processes: list[Process], shared_memory: set[str]) -> list[str]:
    ports = [
        f"port {port} ({process.name}, {what}) still listens"
        for process in processes
        for what, port in process.ports.items()
        if is_listening(port)
    ]
    files = [f"{name} was left" for name in sorted(shared_memory) if os.path.exists(name)]
    return ports + files + sysv_segments_of({process.pid for process in processes})


def sysv_segments_of(pids: set[int]) -> list[str]:
    return [f"SysV segment {segment} was left" for segment in sysv_segments_made_by(pids)]


def sysv_segments_made_by(pids: set[int]) -> list[str]:
    """Their ids."""
    with contextlib.suppress(FileNotFoundError):
        head, *rows = pathlib.Path("/proc/sysvipc/shm").read_text().splitlines()
        creator = head.split().index("cpid")
        return [row.split()[1] for row in rows if int(row.split()[creator]) in pids]
    return []


def descendants(pid: int) -> list[int]:
    """Processes below pid, children first."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found
