"""Run by test_pinned_devices.py: workers of one network, on a host that has another as well."""

import pathlib
import socket
import struct
import subprocess

import api
import certificates
import harness
import networks
import pytest

OTHER = "10.78.0.1"  # of the network that is not meant for workers


@pytest.fixture(scope="module")
def two_networks():
    assert networks.are_here(), "test_pinned_devices.py runs this"
    cable = networks.Cable()
    for command in [
        "link add baton2 type veth peer name baton3",
        f"address add {OTHER}/24 dev baton2",
        "link set baton2 up",
        "link set baton3 up",
        "route add default via 10.78.0.2 dev baton2",
    ]:
        subprocess.run(["ip", *command.split()], check=True)
    yield
    cable.remove()


@pytest.fixture
def secret(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("between the two of us, and long enough\n")
    secret.chmod(0o600)
    return secret


class OnHost(harness.Cluster):
    host = networks.HERE

    def start_worker(self, name: str):
        self.workers[name].host = self.host
        return super().start_worker(name)


def listening_at(pid: int) -> set[str]:
    """Addresses, of IPv4, at which this process takes connections."""
    sockets = set()
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        sockets.add(str(fd.readlink()))
    found = set()
    for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, _, _, _, _, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in sockets:
            found.add(socket.inet_ntoa(struct.pack("<I", int(local.split(":")[0], 16))))
    return found


@pytest.mark.parametrize(
    "devices,transport,expected",
    [
        (None, "tcp", {networks.HERE}),
        (None, "auto", {networks.HERE}),
        ("baton2", "tcp", {networks.HERE, OTHER}),
        ("all", "tcp", {networks.HERE, OTHER, "127.0.0.1"}),
    ],
    ids=["by_itself", "shared_memory", "asked_for", "all"],
)
def test_kv_listens_on(two_networks, tiny, tmp_path, secret, devices, transport, expected):
    cluster = OnHost(tiny, tmp_path, {"secret_file": secret})
    try:
        cluster.start(
            prefill=1,
            decode=1,
            transport=transport,
            trusted_network=True,
            secret_file=secret,
            **({"ucx_devices": devices} if devices else {}),
        )
        assert api.complete(cluster, "pass it on " * 20, max_tokens=4)
        assert cluster.metrics("decode-0").sum("baton_kv_read_bytes_total") > 0
        for worker in cluster.workers.values():
            assert listening_at(worker.process.pid) == expected
            said = devices or "baton0"
            assert f"KV over the network: on {said}\n" in worker.process.log.read_text()
    finally:
        cluster.stop()


@pytest.mark.parametrize("proof", ["secret", "certificate"])
def test_any_address_is_the_default_routes(two_networks, tiny, tmp_path, secret, proof):
    options = {
        "role": "prefill",
        "model": tiny,
        "listen": "0.0.0.0:0",
        "kv_gib": 0.05,
        "trusted_network": True,
    }
    if proof == "secret":
        options["secret_file"] = secret
    else:
        options |= certificates.Authority(tmp_path, "ours").issue("worker")
    process = harness.Process("prefill", "worker", options, tmp_path)
    process.wait_ready()
    assert "KV over the network: on baton2\n" in process.log.read_text()
    assert listening_at(process.pid) == {"0.0.0.0", OTHER, "127.0.0.1"}  # RPC, KV, metrics
    assert process.stop() == 0
