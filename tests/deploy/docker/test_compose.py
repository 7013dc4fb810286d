"""deploy/compose.yaml: what it starts is what the binary takes, and only loopback can reach it."""

import os
import re
import subprocess

import harness
import yaml

ROOT = harness.ROOT
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES = COMPOSE["services"]
BATON = {name: s for name, s in SERVICES.items() if s["image"].startswith("baton:")}
PROCESSES = {name: s for name, s in BATON.items() if "entrypoint" not in s}


def test_the_binary_takes_every_flag(baton_is_built):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}
    assert {"router", "prefill", "decode"} == set(PROCESSES)
    for name, service in PROCESSES.items():
        run = subprocess.run([harness.BIN, *service["command"], "--print-config"],
                             capture_output=True, text=True, env=plain)  # fmt: skip
        assert run.returncode == 0, f"{name}: {run.stderr}"
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace >= yaml.safe_load(run.stdout)["drain_seconds"] + 10


def test_routers_know_the_workers():
    command = SERVICES["router"]["command"]
    workers = command[command.index("--workers") + 1 :]
    assert workers == [f"{name}:9000" for name in PROCESSES if name != "router"]
    for worker in workers:
        assert f"--advertise={worker}" in SERVICES[worker.split(":")[0]]["command"]


def test_images_are_pinned():
    for service in SERVICES.values():
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), service["image"]


def test_images_that_nobody_publishes_are_built():
    for service in BATON.values():
        build = service["build"]
        assert (ROOT / "deploy" / build["context"] / build["dockerfile"]).is_file()


def test_nothing_has_privileges():
    for service in SERVICES.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service)
    for service in BATON.values():
        assert service["read_only"] is True
        assert service["user"] == "10001:10001"


def test_only_loopback_reaches_in_and_workers_have_no_way_out():
    published = {n: s["ports"] for n, s in SERVICES.items() if "ports" in s}
    assert set(published) == {"router", "prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    assert COMPOSE["networks"]["workers"] == {"internal": True}
    for name in ("prefill", "decode"):
        assert SERVICES[name]["networks"] == ["workers"]


def test_the_secret_is_drawn_once_and_fits(tmp_path):
    """Its script, as the service runs it, in a folder of the test."""
    [script] = SERVICES["secret"]["command"]
    command = [*SERVICES["secret"]["entrypoint"], script.replace("/var/lib/baton", str(tmp_path))]
    drawn = []
    for _ in range(2):
        subprocess.run(command, check=True)
        drawn.append((tmp_path / "secret").read_text())
    assert drawn[0] == drawn[1]
    assert re.fullmatch(r"[0-9a-f]{64}", drawn[0])
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_prometheus_is_told_of_each_process():
    files = (ROOT / "deploy/prometheus/targets").glob("*.yaml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text())]
    targets = {target for group in groups for target in group["targets"]}
    assert targets == {"router:9100", "prefill:9100", "decode:9100"}


def test_volumes_are_there():
    named = set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in named or (ROOT / "deploy" / source).is_dir(), source
