"""A request for one token, or for scores alone, is a prefill worker's affair."""

import api

PROMPT = "the same long beginning of every question, " * 12


def test_one_token_needs_no_decode_worker_and_leaves_its_prompt_cached(start_cluster, tiny):
    cluster = start_cluster(tiny, prefill=1, decode=1)
    first = api.complete(cluster, PROMPT, max_tokens=1, temperature=0)
    assert first["usage"]["completion_tokens"] == 1
    assert cluster.metrics("decode-0").sum("baton_kv_read_bytes_total") == 0
    assert cluster.metrics("prefill-0").sum("vllm:prefix_cache_hits_total") == 0

    # What is handed over later begins with what it left.
    second = api.complete(cluster, PROMPT, max_tokens=8, temperature=0)
    assert second["choices"][0]["text"].startswith(first["choices"][0]["text"])
    assert cluster.metrics("decode-0").sum("baton_kv_read_bytes_total") > 0
    hits = cluster.metrics("prefill-0").sum("vllm:prefix_cache_hits_total")
    assert hits > 0.8 * second["usage"]["prompt_tokens"]
    assert cluster.metrics("decode-0").sum("baton_kv_digest_mismatches_total") == 0
