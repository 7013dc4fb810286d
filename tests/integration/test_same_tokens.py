"""The same request gives the same bytes, however the cluster computes it."""

import json

import api
import harness
import pytest
from same import REQUESTS, answers, answers_together, differences

# How each cluster differs from the reference: one mixed worker, one thread, chunks of 256.
SETUPS = {
    "two threads": {"mixed": 1, "threads": 2},
    "chunks of 16": {"mixed": 1, "chunk_tokens": 16},
    "chunks of 64": {"mixed": 1, "chunk_tokens": 64},
    "whole prompts": {"mixed": 1, "chunk_tokens": 0},
    "blocks of 64": {"mixed": 1, "block_tokens": 64},
    "preempted": {"mixed": 1, "preempt_every": 7},
    "shared memory": {"prefill": 1, "decode": 1, "transport": "shm"},
    "tcp": {"prefill": 1, "decode": 1, "transport": "tcp"},
    "split, chunks of 16": {"prefill": 1, "decode": 1, "chunk_tokens": 16, "threads": 2},
    "split, preempted": {"prefill": 1, "decode": 1, "preempt_every": 7},
    "two of each": {"prefill": 2, "decode": 2},
}

# Another processor: its kernels may round otherwise, so that it is compared with itself.
AVX2 = {"BATON_MAX_ISA": "avx2"}
SETUPS_ON_AVX2 = {
    "two threads, chunks of 16": {"mixed": 1, "threads": 2, "chunk_tokens": 16},
    "split, preempted": {"prefill": 1, "decode": 1, "preempt_every": 7},
}


@pytest.fixture(scope="module")
def expected(start_shared_cluster, tiny) -> dict[str, str]:
    """Computed alone, the prefix cold."""
    cluster = start_shared_cluster(tiny, mixed=1, prefix_cache=False)
    return answers(cluster, REQUESTS)


def test_the_answers_are_worth_comparing(expected):
    assert len(set(expected.values())) == len(REQUESTS)
    texts = [c["text"] for c in json.loads(expected["choices"])]
    assert len(set(texts)) == 3


@pytest.mark.parametrize("setup", SETUPS)
def test_tiny_model(start_cluster, tiny, expected, setup):
    cluster = start_cluster(tiny, **SETUPS[setup])
    assert not differences(answers(cluster, REQUESTS), expected), "alone, prefix cold"
    assert not differences(answers(cluster, REQUESTS), expected), "alone, prefix cached"
    assert not differences(answers_together(cluster, REQUESTS), expected), "among 15 others"


@pytest.fixture(scope="module")
def expected_on_avx2(start_shared_cluster, tiny) -> dict[str, str]:
    cluster = start_shared_cluster(tiny, env=AVX2, mixed=1, prefix_cache=False)
    return answers(cluster, REQUESTS)


@pytest.mark.parametrize("setup", SETUPS_ON_AVX2)
def test_tiny_model_on_avx2(start_cluster, tiny, expected_on_avx2, setup):
    cluster = start_cluster(tiny, env=AVX2, **SETUPS_ON_AVX2[setup])
    assert not differences(answers(cluster, REQUESTS), expected_on_avx2), "alone"
    assert not differences(answers_together(cluster, REQUESTS), expected_on_avx2), "among others"


def test_what_the_setups_claim_really_happens(start_cluster, tiny):
    cluster = start_cluster(tiny, prefill=1, decode=1, transport="tcp", preempt_every=5)
    answers(cluster, REQUESTS)
    decode = cluster.metrics("decode-0")
    assert decode.sum("baton_kv_read_bytes_total") > 0
    (name,) = harness.names_of("tcp")
    assert any(name in s.labels["transport"] for s in decode.samples("baton_kv_peer_up"))
    assert decode.sum("vllm:num_preemptions_total") > 0


SETUPS_OF_THE_REAL_MODEL = {
    "two threads": {"mixed": 1, "threads": 2, "chunk_tokens": 64},
    "whole prompts": {"mixed": 1, "chunk_tokens": 0},
    "shared memory": {"prefill": 1, "decode": 1, "transport": "shm"},
    "tcp": {"prefill": 1, "decode": 1, "transport": "tcp", "chunk_tokens": 16},
    "preempted": {"mixed": 1, "preempt_every": 9},
}
REAL_REQUESTS = {
    name: REQUESTS[name] | {"max_tokens": 16}
    for name in ["greedy", "sampled", "penalized", "logprobs", "long sampled"]
}


@pytest.fixture(scope="module")
def expected_of_the_real_model(start_shared_cluster, quickstart_model) -> dict[str, str]:
    cluster = start_shared_cluster(quickstart_model, mixed=1, kv_gib=0.2, prefix_cache=False)
    return answers(cluster, REAL_REQUESTS)


@pytest.mark.slow
@pytest.mark.parametrize("setup", SETUPS_OF_THE_REAL_MODEL)
def test_quickstart_model(start_cluster, quickstart_model, expected_of_the_real_model, setup):
    expected = expected_of_the_real_model
    cluster = start_cluster(quickstart_model, kv_gib=0.2, **SETUPS_OF_THE_REAL_MODEL[setup])
    assert not differences(answers(cluster, REAL_REQUESTS), expected), "alone, prefix cold"
    assert not differences(answers(cluster, REAL_REQUESTS), expected), "alone, prefix cached"
    assert not differences(answers_together(cluster, REAL_REQUESTS), expected), "among others"


@pytest.mark.slow
def test_quickstart_model_on_avx2(start_cluster, quickstart_model):
    expected = answers(
        start_cluster(quickstart_model, env=AVX2, kv_gib=0.2, mixed=1, prefix_cache=False),
        REAL_REQUESTS,
    )
    cluster = start_cluster(quickstart_model, env=AVX2, kv_gib=0.2, prefill=1, decode=1)
    assert not differences(answers(cluster, REAL_REQUESTS), expected), "alone"
    assert not differences(answers_together(cluster, REAL_REQUESTS), expected), "among others"
    assert (
        "Paris"
        in api.chat(cluster, "What is the capital of France?", temperature=0, max_tokens=20)[
            "choices"
        ][0]["message"]["content"]
    )
