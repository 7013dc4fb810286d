"""An overlay as Kustomize renders it."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERLAYS = ["cpu-demo", "gpu-tcp", "gpu-rdma"]
OLDEST_KUBECTL = 27  # of 1.27: Kustomize 5
NO_KUBECTL = "no kubectl of 1.27 or newer here; scripts/get_kubectl.sh fetches one"


def kubectl() -> str | None:
    """$BATON_KUBECTL, or the one on the PATH if it is new enough."""
    given = os.environ.get("BATON_KUBECTL") or shutil.which("kubectl")
    if not given:
        return None
    shown = subprocess.run([given, "version", "--client"], capture_output=True, text=True).stdout
    found = re.search(r"v1\.(\d+)|Minor:\"(\d+)", shown)
    return given if found and int(found[1] or found[2]) >= OLDEST_KUBECTL else None


@dataclasses.dataclass(frozen=True)
class Pool:
    """A StatefulSet of workers, and between how many of them there are."""

    name: str
    low: int
    high: int


class Overlay:
    def __init__(self, name: str, objects: list[dict]):
        self.name = name
        self.objects = objects

    def all(self, kind: str) -> list[dict]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> dict:
        [found] = [o for o in self.all(kind) if name in (None, o["metadata"]["name"])]
        return found

    def workloads(self) -> list[dict]:
        return self.all("Deployment") + self.all("StatefulSet")

    def config(self, workload: dict) -> dict:
        """What the file says that this workload's --config names."""
        [path] = [a.split("=")[1] for a in container(workload)["args"] if a.startswith("--config=")]
        folder, file = path.rsplit("/", 1)
        [mount] = [m for m in container(workload)["volumeMounts"] if m["mountPath"] == folder]
        [volume] = [v for v in pod_spec(workload)["volumes"] if v["name"] == mount["name"]]
        return yaml.safe_load(self.one("ConfigMap", volume["configMap"]["name"])["data"][file])

    def pools(self) -> list[Pool]:
        limits = {
            scaled["spec"]["scaleTargetRef"]["name"]: scaled["spec"]
            for scaled in self.all("ScaledObject")
        }
        pools = []
        for workers in self.all("StatefulSet"):
            name, fixed = workers["metadata"]["name"], workers["spec"].get("replicas")
            spec = limits.get(name, {"minReplicaCount": fixed, "maxReplicaCount": fixed})
            pools.append(Pool(name, spec["minReplicaCount"], spec["maxReplicaCount"]))
        return pools


def pod_spec(workload: dict) -> dict:
    return workload["spec"]["template"]["spec"]


def container(workload: dict) -> dict:
    [only] = pod_spec(workload)["containers"]
    return only


@functools.cache
def render(name: str, *components: str, namespace: str = "baton") -> Overlay:
    """An overlay; with components, as if it named them too, and perhaps another namespace."""
    folder = ROOT / "deploy/kubernetes/overlays" / name
    if not components:
        return Overlay(name, _kustomize(folder))
    with tempfile.TemporaryDirectory() as made:
        own = pathlib.Path(made).resolve()
        house = pathlib.Path(os.path.relpath(ROOT / "deploy/kubernetes", own))
        wanted = {
            "namespace": namespace,
            "resources": [str(house / "overlays" / name)],
            "components": [str(house / "components" / component) for component in components],
        }
        (own / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
        return Overlay(name, _kustomize(own))


def _kustomize(folder: pathlib.Path) -> list[dict]:
    run = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True)
    if run.returncode != 0 or run.stderr:  # what it warns of will be an error one day
        raise AssertionError(f"kubectl kustomize {folder}: {run.stderr}")
    return [found for found in yaml.safe_load_all(run.stdout) if found]
