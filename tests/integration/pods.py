"""A pod as a process: what the manifests tell the binary, with addresses of this machine."""

import os
import pathlib
import re
import subprocess
import sys

import harness
import yaml

sys.path.insert(0, str(harness.ROOT / "scripts"))

from manifests import rendered  # noqa: E402
from manifests.rendered import container  # noqa: E402


def env_of(workload: dict, name: str) -> dict[str, str]:
    """As the node would set it for the pod of this name."""
    fields = {"metadata.name": name, "status.podIP": "127.0.0.1"}
    return {
        item["name"]: item.get("value") or fields[item["valueFrom"]["fieldRef"]["fieldPath"]]
        for item in container(workload).get("env", [])
    }


def args_of(workload: dict, name: str) -> list[str]:
    env = env_of(workload, name)
    return [
        re.sub(r"\$\((\w+)\)", lambda match: env[match[1]], arg)
        for arg in container(workload)["args"]
    ]


def in_force(args: list[str]) -> dict:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}
    run = subprocess.run(
        [harness.BIN, *args, "--print-config"], capture_output=True, text=True, env=plain
    )
    assert run.returncode == 0, run.stderr
    return yaml.safe_load(run.stdout)


def placed(
    overlay: rendered.Overlay, workload: dict, folder: pathlib.Path, name: str = "pod-0", **instead
) -> list[str]:
    """A pod's arguments, with its file of configuration in `folder` and some keys changed."""
    config = overlay.config(workload) | instead
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    args = args_of(workload, name)
    return [f"--config={file}" if a.startswith("--config=") else a for a in args]
