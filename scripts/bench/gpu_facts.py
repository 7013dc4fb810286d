"""What the machine says of its GPU, its clocks while it works, and where its tools and libraries
are. Nothing here changes a setting."""

import glob
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading

# Of nvidia-smi's queries, and how a page calls them.
QUERIES = {
    "name": "GPU",
    "driver_version": "Driver",
    "memory.total": "Memory",
    "clocks.max.sm": "SM clock, at most",
    "clocks.max.memory": "Memory clock, at most",
    "power.limit": "Power limit",
}
WATCHED = {"clocks.sm": "sm_mhz", "clocks.mem": "memory_mhz", "power.draw": "watts",
           "temperature.gpu": "celsius"}  # fmt: skip
FOLDERS = ["/usr/local/cuda*/bin", "/opt/cuda*/bin", "/opt/nvidia/*/bin"]
LIBRARIES = [
    "/usr/local/cuda*/lib64",
    "/usr/local/cuda*/targets/*/lib",
    "/usr/lib/*-linux-gnu",
    "/opt/cuda*/lib64",
]


def query(names: list[str]) -> list[str] | None:
    """Of the first GPU; None where there is no nvidia-smi or it has nothing to show."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [
        program,
        f"--query-gpu={','.join(names)}",
        "--format=csv,noheader,nounits",
        "-i",
        "0",
    ]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return None
    if shown.returncode != 0 or not shown.stdout.strip():
        return None
    values = [value.strip() for value in shown.stdout.splitlines()[0].split(",")]
    return values if len(values) == len(names) else None


def facts() -> dict[str, str]:
    values = query(list(QUERIES))
    if values is None:
        return {}
    found = dict(zip(QUERIES.values(), values))
    units = {"Memory": "MiB", "SM clock, at most": "MHz", "Memory clock, at most": "MHz",
             "Power limit": "W"}  # fmt: skip
    return {key: f"{value} {units[key]}" if key in units else value for key, value in found.items()}


class Watch:
    """Clocks, power and temperature while something runs, every half second."""

    def __enter__(self) -> "Watch":
        self.seen: list[list[float]] = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.done.is_set():
            values = query(list(WATCHED))
            if values is None:
                return
            try:
                self.seen.append([float(value) for value in values])
            except ValueError:  # "[N/A]"
                return
            self.done.wait(0.5)

    def summary(self) -> dict:
        """Median and most of each, over the moments at which the GPU was busy."""
        if not self.seen:
            return {}
        most = max(moment[2] for moment in self.seen)
        busy = [moment for moment in self.seen if moment[2] > most / 2]
        return {
            name: {"median": statistics.median(values), "most": max(values)}
            for name, values in zip(WATCHED.values(), zip(*busy))
        }


def find_program(name: str) -> str | None:
    if found := shutil.which(name):
        return found
    for folder in FOLDERS:
        for path in sorted(glob.glob(f"{folder}/{name}"), reverse=True):
            return path
    return None


def find_library(name: str) -> pathlib.Path | None:
    """Where CUDA is installed, or where a Python package brings it."""
    folders = [folder for pattern in LIBRARIES for folder in sorted(glob.glob(pattern))]
    for python in filter(None, [sys.executable, shutil.which("python3")]):
        look = "import nvidia; print(*nvidia.__path__, sep='\\n')"
        shown = subprocess.run([python, "-c", look], capture_output=True, text=True)
        for package in shown.stdout.split():
            folders += sorted(glob.glob(f"{package}/*/lib"))
    for folder in folders:
        path = pathlib.Path(folder) / name
        if path.exists():
            return path
    return None
