"""Run by test_cut_network.py: router and prefill here, decode at the other end of a cable."""

import time

import harness
import networks
import pytest
from streams import Stream, blocks_held, check, reference

PROMPT = "the baton goes from hand to hand " * int(200 / harness.PATIENCE)
STREAMS = 4


@pytest.fixture
def cable():
    assert networks.are_here(), "test_cut_network.py runs this"
    cable = networks.Cable()
    yield cable
    cable.remove()


class SplitCluster(harness.Cluster):
    cable: networks.Cable

    def start_worker(self, name: str):
        worker = self.workers[name]
        worker.host = networks.HERE
        if worker.role == "decode":
            worker.host, worker.within = networks.THERE, self.cable.there
        return super().start_worker(name)


@pytest.fixture
def cluster(cable, medium, tmp_path, baton_is_built):
    secret = tmp_path / "secret"
    secret.write_text("between the two of us, and long enough\n")
    secret.chmod(0o600)
    cluster = SplitCluster(medium, tmp_path, {"secret_file": secret})
    cluster.cable = cable
    try:
        yield cluster.start(
            prefill=1,
            decode=1,
            chunk_tokens=32,
            prefix_cache=False,
            transport="tcp",
            trusted_network=True,
            secret_file=secret,
        )
    finally:
        cluster.stop()


def bytes_read(cluster) -> float:
    return cluster.metrics("decode-0").sum("baton_kv_read_bytes_total")


def acks(cluster) -> float:
    """Prompts that decode has told prefill to have all of."""
    return cluster.metrics("prefill-0").sum("baton_kv_messages_received_total", kind="ack")


@pytest.mark.parametrize("seconds", [1, 8], ids=["1_s", "8_s"])
def test_pulled_in_mid_transfer(cluster, cable, seconds):
    bodies = [{"prompt": f"{i} {PROMPT}", "max_tokens": 40} for i in range(STREAMS)]
    expected = reference(cluster, bodies)
    read, acked = bytes_read(cluster), acks(cluster)
    streams = [Stream(cluster, **body) for body in bodies]
    harness.wait_for(lambda: bytes_read(cluster) > read, 20, "bytes cross")
    started = time.monotonic()
    with cable.cut():
        assert acks(cluster) < acked + STREAMS, "it was pulled too late"
        time.sleep(seconds)
    whole = check(streams, expected)
    print(f"{whole} of {STREAMS} whole, after {time.monotonic() - started:.1f} s")

    harness.wait_for(lambda: blocks_held(cluster) == 0, 20, "no worker holds a block")
    cluster.wait_ready()
    assert check([Stream(cluster, **body) for body in bodies], expected) == STREAMS
    harness.wait_for(lambda: blocks_held(cluster) == 0, 10, "no worker holds a block")
    assert all(process.popen.poll() is None for process in cluster.processes())
