"""One measurement of scripts/bench_real_policies: a fresh cluster, requests, and what came of them."""

import asyncio
import contextlib
import dataclasses
import gc
import math
import os
import pathlib
import statistics
import sys
import threading
import time

from bench import emulated, open_loop
from bench.emulated import Placing, Setup
from bench.open_loop import Request, Traffic

TICKS = os.sysconf("SC_CLK_TCK")
# Answers of 57 tokens in the mean: one in 52 of SmolLM2's tokens has an R.
CHAT = Traffic(500, stop=("R",), ends=945 / 49152, max_tokens=160)


@dataclasses.dataclass
class Context:
    """What all measurements of a run share."""

    binaries: pathlib.Path
    model: pathlib.Path
    folder: pathlib.Path  # of the clusters' files, each of which writes over those before it


@dataclasses.dataclass
class Measured:
    outcomes: list[open_loop.Outcome]
    machine: dict[str, float]  # shares of all cores
    roles: list[tuple[float, dict[str, int]]]  # and when; watched only
    flips: int = 0

    def of(self, begin: float, seconds: float) -> dict:
        return open_loop.summary(self.outcomes, emulated.SLO, begin, seconds) | self.machine


def measure(context: Context, setup: Setup, placing: Placing, requests: list[Request], seed: int,
            routers: int = 1, tries: int = 1, watch: bool = False) -> Measured:  # fmt: skip
    emulated.write_inputs(setup, context.folder)
    with emulated.Cluster(context.binaries, context.model, setup, context.folder, placing,
                          routers) as cluster:  # fmt: skip
        seen = Watch(cluster) if watch else contextlib.nullcontext()
        before = Machine.now(cluster)
        gc.collect()
        gc.disable()  # a pause would look like the server's
        try:
            with seen:
                outcomes = asyncio.run(
                    open_loop.play(cluster.ports, cluster.model, requests, seed, tries)
                )
        finally:
            gc.enable()
        machine = Machine.now(cluster).since(before)
        if watch:
            return Measured(outcomes, machine, seen.roles, cluster.flips())
        return Measured(outcomes, machine, [])


class Watch:
    """Looks at the workers' roles once a second."""

    def __init__(self, cluster: emulated.Cluster):
        self.roles: list[tuple[float, dict[str, int]]] = []
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        begun = time.monotonic() + open_loop.LEAD_SECONDS
        while not self._over.wait(1.0):
            with contextlib.suppress(OSError):
                self.roles.append((time.monotonic() - begun, self._cluster.roles()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()


@dataclasses.dataclass
class Machine:
    """Processor time so far, in seconds."""

    wall: float
    idle: float
    total: float
    client: float
    routers: float
    workers: float

    @staticmethod
    def now(cluster: emulated.Cluster) -> "Machine":
        ticks = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return Machine(
            wall=time.monotonic(),
            idle=(ticks[3] + ticks[4]) / TICKS,
            total=sum(ticks) / TICKS,
            client=time.process_time(),
            routers=sum(seconds_of(process.popen.pid) for process in cluster.routers),
            workers=sum(seconds_of(process.popen.pid) for process in cluster.workers),
        )

    def since(self, before: "Machine") -> dict[str, float]:
        total = max(self.total - before.total, 1e-9)
        share = {
            name: (getattr(self, name) - getattr(before, name)) / total
            for name in ("client", "routers", "workers")
        }
        busy = 1 - (self.idle - before.idle) / total
        return share | {"busy": busy, "others": max(busy - sum(share.values()), 0.0)}


def seconds_of(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def simulated_goodput(context: Context, setup: Setup, placing: Placing, traffic: Traffic,
                      requests: list[Request], seconds: float, *more) -> float:  # fmt: skip
    """What the simulator says of such requests: their outputs are drawn anew, the mean of four
    runs."""
    emulated.write_inputs(setup, context.folder)
    goodput = []
    for seed in range(1, 5):
        lengths = open_loop.draw_lengths(traffic, requests, seed)
        emulated.write_trace(lengths, context.folder / "trace.csv")
        [run] = emulated.simulate(context.binaries, context.folder, placing,
                                  "--seeds", f"{seed}..{seed}", *more)  # fmt: skip
        goodput.append(run["joint_met"] * len(requests) / seconds)
    return sum(goodput) / len(goodput)


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def ms(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{1e3 * seconds:.0f}"


def percent(share: float, digits: int = 1) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f} %"


@dataclasses.dataclass
class Part:
    """Of the page."""

    text: str
    rows: list[dict]  # the figures of each measurement
    failed: bool = False


def spread(values: list[float], shown) -> str:
    """The median, and the least and the most where there are several."""
    middle = shown(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({shown(min(values))} to {shown(max(values))})"


def of_cells(rows: list[dict], **wanted) -> list[dict]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
