"""A worker of several ranks gives the bytes that one process gives, hands over to workers of any
other degree, and ends as one when a rank does."""

import os
import signal
import subprocess

import api
import harness
import pytest
import tiny_model
from same import REQUESTS, answers, answers_together, differences
from streams import Stream, check, reference

# Four KV heads: degrees of 1, 2 and 4, and 3 with unequal parts.
SHAPE = tiny_model.Shape(hidden=128, heads=8, kv_heads=4, layers=3)

SETUPS = {
    "mixed, 2": {"mixed": 1, "tensor_parallel": 2},
    "mixed, 4": {"mixed": 1, "tensor_parallel": 4, "preempt_every": 7},
    "2 to 1, shared memory": {"transport": "shm", "tensor_parallel": {"prefill": 2, "decode": 1}},
    "1 to 2, shared memory": {"transport": "shm", "tensor_parallel": {"prefill": 1, "decode": 2}},
    "2 to 1, tcp": {"transport": "tcp", "tensor_parallel": {"prefill": 2, "decode": 1}},
    "1 to 4, tcp": {"transport": "tcp", "tensor_parallel": {"prefill": 1, "decode": 4}},
    "3 to 2, small chunks": {"chunk_tokens": 16, "tensor_parallel": {"prefill": 3, "decode": 2}},
    "2 to 2, preempted": {"preempt_every": 7, "tensor_parallel": {"prefill": 2, "decode": 2}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write_tiny_model(tmp_path_factory.mktemp("models") / "ranks", SHAPE)


@pytest.fixture(scope="module")
def expected(start_shared_cluster, model) -> dict[str, str]:
    cluster = start_shared_cluster(model, mixed=1, prefix_cache=False)
    return answers(cluster, REQUESTS)


@pytest.mark.parametrize("setup", SETUPS)
def test_any_degree_gives_the_same_bytes(start_cluster, model, expected, setup):
    options = SETUPS[setup]
    if "mixed" not in options:
        options = {"prefill": 1, "decode": 1} | options
    cluster = start_cluster(model, **options)
    assert not differences(answers(cluster, REQUESTS), expected), "alone, prefix cold"
    assert not differences(answers_together(cluster, REQUESTS), expected), "among 15 others"
    if "decode" in options:
        decode = cluster.metrics("decode-0")
        assert decode.sum("baton_kv_read_bytes_total") > 0
        assert decode.sum("baton_kv_digest_mismatches_total") == 0


def test_the_real_model_in_unequal_parts(start_cluster, quickstart_model):
    """Its three KV heads make parts of two and one."""
    requests = {
        name: REQUESTS[name] | {"max_tokens": 8} for name in ["greedy", "sampled", "logprobs"]
    }
    alone = start_cluster(quickstart_model, mixed=1)
    wanted = answers(alone, requests)
    alone.stop()
    for degrees in [{"prefill": 2, "decode": 1}, {"prefill": 1, "decode": 3}]:
        cluster = start_cluster(
            quickstart_model, prefill=1, decode=1, kv_gib=0.2, tensor_parallel=degrees
        )
        assert not differences(answers(cluster, requests), wanted), degrees
        cluster.stop()


def ranks_of(process: harness.Process) -> list[int]:
    """The other ranks of a worker, in order."""
    return sorted(harness.descendants(process.pid))


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]):
    harness.wait_for(lambda: not any(map(is_running, pids)), 10, "the ranks are gone")


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_rank_that_ends_takes_its_worker_along_and_no_request(start_cluster, model, role):
    cluster = start_cluster(
        model, harness.TAKING_TURNS, prefill=2, decode=2, tensor_parallel=2, chunk_tokens=32
    )
    requests = [{"prompt": f"{i} pass the baton " * 40, "max_tokens": 120} for i in range(4)]
    expected = reference(cluster, requests)
    streams = [Stream(cluster, **body) for body in requests]
    if role == "decode":
        harness.wait_for(lambda: all(len(s.events) > 5 for s in streams), 30, "all are decoding")
    victim = cluster.workers[f"{role}-0"].process
    (rank,) = ranks_of(victim)
    os.kill(rank, signal.SIGKILL)
    harness.wait_for(lambda: victim.popen.poll() is not None, 10, "the worker ends")
    assert victim.popen.returncode == 1
    log = victim.log.read_text()
    assert f"rank 1 of 2 (process {rank}): ended by signal 9" in log
    assert check(streams, expected) == len(streams)
    # As the other one's supervisor would: it comes back.
    cluster.start_worker(f"{role}-0").wait_ready()
    api.complete(cluster, "again", max_tokens=3)


def test_the_rank_that_was_killed_is_named_not_one_that_missed_it(start_cluster, model):
    cluster = start_cluster(model, mixed=1, tensor_parallel=4)
    worker = cluster.workers["mixed-0"].process
    stream = Stream(cluster, prompt="pass it on", max_tokens=120)
    harness.wait_for(lambda: len(stream.events) > 3, 20, "it is decoding")
    third = ranks_of(worker)[2]
    os.kill(third, signal.SIGKILL)
    harness.wait_for(lambda: worker.popen.poll() is not None, 10, "the worker ends")
    assert f"(process {third}): ended by signal 9" in worker.log.read_text()
    cluster.start_worker("mixed-0").wait_ready()
    stream.end()  # there, or with an error


def test_a_signal_to_all_processes_drains(start_cluster, model):
    cluster = start_cluster(model, mixed=1, tensor_parallel=2)
    worker = cluster.workers["mixed-0"].process
    body = {"prompt": "pass it on", "max_tokens": 150}
    expected = reference(cluster, [body])
    stream = Stream(cluster, **body)
    harness.wait_for(lambda: len(stream.events) > 3, 20, "it is decoding")
    for pid in [*ranks_of(worker), worker.pid]:
        os.kill(pid, signal.SIGTERM)
    assert check([stream], expected) == 1
    assert worker.popen.wait(30) == 0


def test_no_rank_outlives_its_worker(start_cluster, model):
    cluster = start_cluster(model, mixed=2, tensor_parallel=3)
    first, second = (cluster.workers[f"mixed-{i}"].process for i in range(2))
    of_first, of_second = ranks_of(first), ranks_of(second)
    assert len(of_first) == len(of_second) == 2
    stream = Stream(cluster, prompt="pass it on", max_tokens=200)
    harness.wait_for(lambda: len(stream.events) > 3, 20, "it is decoding")
    cluster.kill_worker("mixed-0")
    gone(of_first)
    # Where both end at once it waits for a worker to come, for longer than this router may take.
    stream.end()
    assert second.stop() == 0
    gone(of_second)


def test_a_degree_that_cannot_be_is_refused(model):
    for degree, sentence in [
        (5, "a tensor-parallel degree of 5 is more than the model's 4 KV heads"),
        (0, "--tensor-parallel is not in [1, 64]"),
    ]:
        refused = subprocess.run(
            [harness.BIN, "worker", "--model", model, "--tensor-parallel", str(degree)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert refused.returncode != 0
        assert sentence in refused.stderr
