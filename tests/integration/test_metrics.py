"""What Prometheus scrapes, on every process."""

import api
import harness
import pytest

STATES = ["free", "active", "cached", "quarantined"]


def test_the_router_measures_what_its_clients_see(start_cluster, tiny):
    cluster = start_cluster(tiny, prefill=1, decode=1)
    for _ in range(3):
        events = api.stream_complete(
            cluster, "count me", max_tokens=9, temperature=0, ignore_eos=True
        )
        assert len(events) >= 9
    metrics = cluster.metrics()
    assert metrics.sum("vllm:time_to_first_token_seconds_count") == 3
    assert metrics.sum("vllm:e2e_request_latency_seconds_count") == 3
    assert metrics.sum("vllm:inter_token_latency_seconds_count") == 3 * 8
    first = metrics.sum("vllm:time_to_first_token_seconds_sum")
    whole = metrics.sum("vllm:e2e_request_latency_seconds_sum")
    assert 0 < first < whole < 3 * 30 * harness.PATIENCE
    assert metrics.sum("vllm:num_requests_running") == 0
    assert metrics.sum("vllm:num_requests_waiting") == 0


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_the_hand_off_is_counted_on_both_sides(start_cluster, tiny, transport):
    cluster = start_cluster(tiny, prefill=1, decode=1, transport=transport)
    api.complete(cluster, list(range(50, 250)), max_tokens=4, temperature=0)
    decode = cluster.metrics("decode-0")
    # 2 layers, K and V, 2 heads of 16 values of 2 bytes; 200 tokens at the least.
    assert decode.sum("baton_kv_read_bytes_total") >= 200 * 2 * 2 * 2 * 16 * 2
    assert decode.sum("baton_kv_digest_mismatches_total") == 0
    peers = [s for s in decode.samples("baton_kv_peer_up") if s.value == 1]
    names = harness.names_of(transport)
    assert any(name in peer.labels["transport"] for peer in peers for name in names), peers
    # A second time the prefix is there: less is read.
    before = decode.sum("baton_kv_read_bytes_total")
    api.complete(cluster, list(range(50, 250)), max_tokens=4, temperature=0)
    again = cluster.metrics("decode-0").sum("baton_kv_read_bytes_total") - before
    assert again < before / 2


def test_every_process_exports_the_names_that_dashboards_chart(split):
    api.complete(split, "warm", max_tokens=4)
    names = [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:time_to_first_token_seconds_count",
        "vllm:inter_token_latency_seconds_count",
        "vllm:e2e_request_latency_seconds_count",
    ]
    for process in ["router", *split.workers]:
        metrics = split.metrics(process)
        for name in names:
            assert metrics.has(name), (process, name)
    for worker in split.workers:
        metrics = split.metrics(worker)
        assert metrics.has("vllm:kv_cache_usage_perc")
        assert all(metrics.sum("baton_kv_blocks", state=s) >= 0 for s in STATES)
    for family in split.metrics().families.values():
        assert family.documentation, family.name
        assert family.type != "unknown", family.name


def test_gauges_follow_requests(start_cluster, medium):
    cluster = start_cluster(medium, prefill=1, decode=1)
    body = {"prompt": "go", "max_tokens": 3000, "ignore_eos": True, "stream": True}
    answer = api.post(cluster, "/v1/completions", body, stream=True)
    chunks = answer.iter_content(None)  # to be kept: the connection ends with it
    next(chunks)
    harness.wait_for(
        lambda: cluster.metrics("decode-0").sum("vllm:num_requests_running") == 1, 5, "running 1"
    )
    assert cluster.metrics("decode-0").sum("vllm:kv_cache_usage_perc") > 0
    assert cluster.metrics("decode-0").sum("baton_kv_blocks", state="active") > 0
    answer.close()
    harness.wait_for(
        lambda: cluster.metrics("decode-0").sum("vllm:num_requests_running") == 0, 5, "running 0"
    )
