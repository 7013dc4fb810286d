"""A decode worker without room: prompts are computed all the same, each once, and their KV waits at
prefill until there is some."""

import concurrent.futures
import re
import time

import api
import harness

REQUESTS = 30
AT_ONCE = 3  # decode takes no more
TOKENS = 150


def bodies() -> list[dict]:
    return [
        {
            "prompt": f"{i} " + "the baton goes from hand to hand " * 8,
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        for i in range(REQUESTS)
    ]


def texts(cluster, at_once: int) -> list[str]:
    def text(body: dict) -> str:
        return api.complete(cluster, **body)["choices"][0]["text"]

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(text, bodies()))


def prompts_computed(cluster) -> float:
    return cluster.metrics("prefill-0").sum("vllm:prompt_tokens_total")


def test_what_decode_has_no_room_for_is_parked(start_cluster, medium):
    cluster = start_cluster(medium, harness.ALL_HANDED_OFF, prefill=1, decode=1,
                            max_sequences=AT_ONCE, kv_gib=0.02,
                            prefix_cache=False)  # fmt: skip
    expected = texts(cluster, 1)
    once = prompts_computed(cluster)
    total = cluster.metrics("prefill-0").sum("baton_kv_blocks")
    with concurrent.futures.ThreadPoolExecutor(1) as background:
        all_at_once = background.submit(texts, cluster, REQUESTS)
        parked = []
        while not all_at_once.done():
            parked.append(cluster.metrics("prefill-0").sum("baton_kv_parked_blocks"))
            time.sleep(0.02)
        assert all_at_once.result() == expected
    assert 0 < max(parked) <= total / 2
    assert prompts_computed(cluster) == 2 * once
    assert cluster.metrics().sum("baton_router_retries_total") == 0
    waits = [float(ms) for ms in re.findall(r" parked_ms=([\d.]+)", cluster.router.log.read_text())]
    assert len(waits) >= REQUESTS / 3
    stage = "baton_request_stage_seconds_sum"
    in_metrics = cluster.metrics().sum(stage, stage="parked")
    assert abs(in_metrics - sum(waits) / 1000) < 0.01 + 0.001 * len(waits)

    def nothing_waits() -> bool:
        return cluster.metrics("prefill-0").sum("baton_kv_parked_blocks") == 0

    harness.wait_for(nothing_waits, 2, "nothing is parked")
