"""Clusters of emulated workers (docs/emulated.md), each a process, and the simulator's file of one.

Their device is the profile's, slowed down so that a few dozen requests a second are an overload:
clients and processes then take little of the machine.
"""

import dataclasses
import json
import pathlib
import subprocess
import time

import yaml

from bench import cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILE = ROOT / "deploy/profiles/h200-llama3-8b.yaml"
SLOWER = 8.75
KV_TOKENS, BLOCK, SEQUENCES, CONTEXT = 199_872, 64, 64, 2048
SLO = {"ttft": 0.4, "tpot": 0.06}
READY_SECONDS = 30
PAIRING_SECONDS = 2  # after all are ready, until workers have met


@dataclasses.dataclass(frozen=True)
class Setup:
    name: str
    workers: dict[str, int]  # by role
    chunk_tokens: int


SPLIT = Setup("4 prefill + 4 decode", {"prefill": 4, "decode": 4}, 2048)
MIXED = Setup("8 mixed", {"mixed": 8}, 512)


@dataclasses.dataclass(frozen=True)
class Placing:
    policy: str = "goodput"
    admission: bool = True

    @property
    def name(self) -> str:
        return self.policy if self.admission else f"{self.policy}, no admission"

    def flags(self) -> list[str]:
        return ["--policy", self.policy, f"--admission={str(self.admission).lower()}"]


def write_inputs(setup: Setup, folder: pathlib.Path, message_us: float = 100, routers: int = 1):
    """profile.yaml, and cluster.yaml for the simulator."""
    profile = yaml.safe_load(PROFILE.read_text())
    for part in ("step", "link"):
        for key in profile[part]:
            if key.endswith("_us"):
                profile[part][key] *= SLOWER
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile))
    group = {
        "profile": "profile.yaml", "kv_tokens": KV_TOKENS, "block_tokens": BLOCK,
        "chunk_tokens": setup.chunk_tokens, "max_sequences": SEQUENCES, "max_context": CONTEXT,
    }  # fmt: skip
    workers = [group | {"role": role, "count": n} for role, n in setup.workers.items()]
    network = {"message_us": message_us}
    cluster_file = {"routers": routers, "network": network, "workers": workers}
    (folder / "cluster.yaml").write_text(yaml.safe_dump(cluster_file))


def worker_flags(setup: Setup, folder: pathlib.Path) -> list:
    kv_bytes = yaml.safe_load(PROFILE.read_text())["kv_bytes_per_token"] * (KV_TOKENS + 1)
    return [
        "--device", "emulated", "--profile", folder / "profile.yaml",
        "--kv-gib", kv_bytes / 2**30, "--block-tokens", BLOCK,
        "--chunk-tokens", setup.chunk_tokens,
        "--max-sequences", SEQUENCES, "--max-context", CONTEXT,
    ]  # fmt: skip


def router_flags(placing: Placing, slo: dict[str, float] = SLO) -> list[str]:
    targets = f"default: ttft={slo['ttft']}s, tpot={slo['tpot'] * 1000:g}ms"
    return ["--slo-class", targets, *placing.flags()]


def write_trace(requests: list[tuple[float, int, int]], path: pathlib.Path):
    """Arrival, prompt and output tokens of each, as the simulator reads them."""
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for at, prompt, output in requests:
        minutes, seconds = divmod(round(at * 1e7) / 1e7, 60)
        lines.append(f"2024-01-01 00:{int(minutes):02d}:{seconds:010.7f},{prompt},{output}")
    path.write_text("\n".join(lines))


def simulate(binaries: pathlib.Path, folder: pathlib.Path, placing: Placing, *more) -> list[dict]:
    """Runs of trace.csv on cluster.yaml, both in this folder."""
    command = [
        binaries / "baton", "sim", "--cluster", folder / "cluster.yaml",
        "--trace", folder / "trace.csv", "--slo", f"ttft={SLO['ttft']},tpot={SLO['tpot']}",
        "--json", folder / "result.json", *placing.flags(), *more,
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "result.json").read_text())["points"][0]["runs"]


class Cluster(cluster.Started):
    """Any number of workers and routers. In `folder`: profile.yaml, and their logs."""

    def __init__(self, binaries: pathlib.Path, model: pathlib.Path, setup: Setup,
                 folder: pathlib.Path, placing: Placing, routers: int = 1):  # fmt: skip
        self.baton, self.model_path, self.folder = binaries / "baton", model, folder
        self.setup, self.placing, self.num_routers = setup, placing, routers
        self.workers: list[cluster.Process] = []
        self.routers: list[cluster.Process] = []

    def _start(self) -> None:
        for role, count in self.setup.workers.items():
            for i in range(count):
                self.workers.append(self._process("worker", f"{role}-{i}", [
                    "--role", role, "--name", f"{role}-{i}",
                    *worker_flags(self.setup, self.folder),
                ]))  # fmt: skip
        addresses = [f"127.0.0.1:{worker.ports['rpc']}" for worker in self.workers]
        for i in range(self.num_routers):
            self.routers.append(self._process("router", f"router-{i}", [
                "--listen", "127.0.0.1:0", "--workers", *addresses,
                "--record-requests", self.folder / f"requests-{i}.csv",
                *router_flags(self.placing),
            ]))  # fmt: skip
        self.ports = [router.ports["http"] for router in self.routers]
        self._wait_ready()
        self.model = cluster.model_of(self.ports[0])

    def _process(self, command: str, name: str, flags: list) -> cluster.Process:
        whole = [self.baton, command, "--model", self.model_path, "--log-level", "warn", *flags]
        return cluster.Process(name, whole, self.folder)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while any(sum(self.roles(i).values()) < len(self.workers) for i in range(len(self.ports))):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all workers are ready; see {self.folder}")
            time.sleep(0.1)
        time.sleep(PAIRING_SECONDS)

    def roles(self, router: int = 0) -> dict[str, int]:
        """Workers that this router may place on, by role."""
        found = dict.fromkeys(("prefill", "decode", "mixed"), 0)
        for name, value in self.routers[router].metrics().items():
            for role in found:
                if is_of(name, "baton_router_workers", f'role="{role}"', 'state="ready"'):
                    found[role] += round(value)
        return found

    def flips(self) -> int:
        """That the routers ordered and saw done."""
        found = [router.metrics().items() for router in self.routers]
        return round(sum(
            value for one in found for name, value in one if is_of(name, "baton_role_flips_total")
        ))  # fmt: skip

    def __exit__(self, *_) -> None:
        processes = [*self.routers, *self.workers]
        for process in processes:
            process.popen.terminate()
        for process in processes:
            process.stop()


def is_of(sample: str, metric: str, *labels: str) -> bool:
    return sample.startswith(metric + "{") and all(label in sample for label in labels)
