"""Classes of service, from the client's header to the metrics and the log."""

import concurrent.futures
import random
import re

import api
import harness
import openai
import pytest
import requests

CONFIG = """\
slo_class:
  - 'interactive: ttft=3600s, tpot=3600s'
  - 'hasty: ttft=1ms, tpot=1ms'
  - 'batch: best-effort'
default_slo_class: interactive
admission: false
"""
PROMPT = list(range(3, 303))
# Whose every step takes some milliseconds.
SLOW = {
    "device": "emulated",
    "profile": harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml",
    "kv_gib": 0.5,
}


@pytest.fixture(scope="module")
def cluster(start_shared_cluster, tiny, tmp_path_factory):
    config = tmp_path_factory.mktemp("slo") / "router.yaml"
    config.write_text(CONFIG)
    return start_shared_cluster(tiny, {"config": config}, mixed=1, **SLOW)


@pytest.fixture(scope="module")
def strict(start_shared_cluster, tiny):
    """Refuses what it foresees to be late."""
    options = {"slo_class": ["interactive: ttft=60s, tpot=60s", "batch: best-effort"]}
    return start_shared_cluster(tiny, options, mixed=1, **SLOW | {"kv_gib": 2})


def refused(cluster, reason: str) -> float:
    return cluster.metrics().sum("baton_router_refused_total", reason=reason)


def count(cluster, slo_class: str, result: str) -> float:
    return cluster.metrics().sum(
        "baton_slo_requests_total", **{"class": slo_class, "result": result}
    )


def log_of(cluster, answer: requests.Response) -> str:
    name = answer.headers["x-request-id"]
    return harness.wait_for(
        lambda: next((x for x in lines(cluster) if f"id={name} " in x), None), 5, "access line"
    )


def lines(cluster) -> list[str]:
    return cluster.router.log.read_text().splitlines()


def ask(cluster, headers=None, **fields) -> requests.Response:
    body = {"prompt": PROMPT, "max_tokens": 3, "ignore_eos": True} | fields
    return api.post(cluster, "/v1/completions", body, headers=headers)


@pytest.mark.parametrize(
    ("headers", "fields", "slo_class", "result"),
    [
        ({}, {}, "interactive", "met"),
        ({}, {"service_tier": "auto"}, "interactive", "met"),
        ({}, {"service_tier": "flex"}, "batch", "met"),
        ({"x-baton-slo-class": "batch"}, {"stream": True}, "batch", "met"),
        ({}, {"service_tier": "hasty", "max_tokens": 1}, "hasty", "missed_ttft"),
        ({"x-slo-ttft-ms": "1"}, {}, "interactive", "missed_ttft"),
        ({"x-baton-slo-tpot-ms": "3600000", "x-slo-ttft-ms": "60000.5"}, {}, "interactive", "met"),
        (
            {"x-baton-slo-class": "hasty", "x-baton-slo-tpot-ms": "60000"},
            {},
            "hasty",
            "missed_ttft",
        ),
        ({"x-baton-slo-class": "hasty"}, {"prompt": [PROMPT, PROMPT], "n": 2}, "hasty", "missed_"),
    ],
)
def test_a_request_is_counted_by_class_and_result(cluster, headers, fields, slo_class, result):
    def counted() -> float:
        found = cluster.metrics().samples("baton_slo_requests_total")
        return sum(
            s.value
            for s in found
            if s.labels["class"] == slo_class and s.labels["result"].startswith(result)
        )

    before, all_before = counted(), cluster.metrics().sum("baton_slo_requests_total")
    answer = ask(cluster, headers, **fields)
    assert answer.status_code == 200, answer.text
    assert counted() == before + 1
    assert cluster.metrics().sum("baton_slo_requests_total") == all_before + 1
    assert f"slo={slo_class} slo_result={result}" in log_of(cluster, answer)


@pytest.mark.parametrize(
    ("headers", "fields", "param", "named"),
    [
        ({}, {"service_tier": "scale"}, "service_tier", "interactive, hasty, batch"),
        ({}, {"service_tier": 1}, "service_tier", "string"),
        ({"x-baton-slo-class": "gold"}, {}, "x-baton-slo-class", "interactive, hasty, batch"),
        ({"x-baton-slo-class": "batch"}, {"service_tier": "hasty"}, "service_tier", "different"),
        ({"x-baton-slo-ttft-ms": "fast"}, {}, "x-baton-slo-ttft-ms", "'fast'"),
        ({"x-slo-ttft-ms": "0.5"}, {}, "x-slo-ttft-ms", "between 1 and 3600000"),
        ({"x-baton-slo-tpot-ms": "1e2"}, {}, "x-baton-slo-tpot-ms", "'1e2'"),
        ({"x-slo-tpot-ms": "3600001"}, {}, "x-slo-tpot-ms", "between 1 and 3600000"),
        (
            {"x-slo-tpot-ms": "5", "x-baton-slo-tpot-ms": "6"},
            {},
            "x-baton-slo-tpot-ms",
            "x-slo-tpot-ms",
        ),
    ],
)
def test_what_is_no_class_or_no_time_is_refused_by_name(cluster, headers, fields, param, named):
    before = cluster.metrics().sum("baton_slo_requests_total")
    answer = ask(cluster, headers, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert named in error["message"]
    assert cluster.metrics().sum("baton_slo_requests_total") == before


def test_the_openai_package_chooses_and_sees_what_came_of_it(cluster):
    with openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model=cluster.model_name,
            messages=[{"role": "user", "content": "hurry"}],
            max_tokens=4,
            service_tier="flex",
            extra_body={"ignore_eos": True},
            extra_headers={"x-baton-timings": "1", "x-slo-tpot-ms": "3600000"},
        )
    timings = answer.model_extra["baton"]
    assert timings["slo_class"] == "batch"
    assert timings["slo_result"] == "met"
    assert timings["target_ttft_ms"] is None
    assert timings["target_tpot_ms"] == 3600000
    assert 0 < timings["tpot_ms"] <= timings["worst_gap_ms"]


def test_the_log_has_the_figures(cluster):
    line = log_of(cluster, ask(cluster, max_tokens=6))
    found = re.search(r" ttft_ms=([\d.]+) .*slo_result=met tpot_ms=([\d.]+) gap_ms=([\d.]+)", line)
    ttft, tpot, gap = map(float, found.groups())
    assert ttft > 1
    assert 0 < tpot <= gap + 0.1
    assert "tpot_ms" not in log_of(cluster, ask(cluster, max_tokens=1))


def test_whose_client_goes_away_is_cancelled(cluster):
    before = count(cluster, "interactive", "cancelled")
    body = {"prompt": PROMPT, "max_tokens": 200, "ignore_eos": True, "stream": True}
    with api.post(cluster, "/v1/completions", body, stream=True) as answer:
        next(answer.iter_content(None))
    harness.wait_for(
        lambda: count(cluster, "interactive", "cancelled") == before + 1, 10, "it is counted"
    )


@pytest.mark.parametrize("stream", [False, True])
def test_what_even_an_idle_cluster_would_miss_is_refused_for_good(strict, stream):
    before = refused(strict, "slo_impossible"), count(strict, "interactive", "refused")
    answer = ask(strict, {"x-baton-slo-ttft-ms": "1"}, stream=stream)
    assert answer.status_code == 422
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    error = answer.json()["error"]
    assert error["code"] == "slo_impossible"
    assert "TTFT" in error["message"]
    assert refused(strict, "slo_impossible") == before[0] + 1
    assert count(strict, "interactive", "refused") == before[1] + 1
    assert "finish=slo_impossible" in log_of(strict, answer)
    assert "slo=interactive slo_result=refused" in log_of(strict, answer)


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_refused_request_no_prompt_is_served(strict, order):
    before = refused(strict, "slo_impossible")
    prompts = [PROMPT * 10, PROMPT][::order]  # the long one takes some 100 ms by itself
    answer = ask(strict, {"x-slo-ttft-ms": "40"}, prompt=prompts, max_tokens=500)
    assert answer.status_code == 422
    metrics = strict.metrics()
    assert metrics.sum("vllm:num_requests_running") + metrics.sum("vllm:num_requests_waiting") == 0
    assert refused(strict, "slo_impossible") == before + 1


def test_best_effort_is_not_refused_for_a_target_but_misses_it(strict):
    before = count(strict, "batch", "missed_ttft")
    assert ask(strict, {"x-slo-ttft-ms": "1", "x-baton-slo-class": "batch"}).status_code == 200
    assert count(strict, "batch", "missed_ttft") == before + 1


def test_the_openai_package_does_not_repeat_what_is_impossible(strict):
    before = refused(strict, "slo_impossible")
    with openai.OpenAI(base_url=strict.url + "/v1", api_key="none", max_retries=3) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="idle cluster"):
            client.completions.create(
                model=strict.model_name,
                prompt=PROMPT,
                max_tokens=9,
                extra_headers={"x-slo-tpot-ms": "1"},
            )
    assert refused(strict, "slo_impossible") == before + 1


def test_what_cannot_be_met_now_is_told_when_to_come_back(strict):
    def long_prompt(number: int) -> int:
        draw = random.Random(number)
        prompt = [draw.randrange(3, 300) for _ in range(3000)]
        return ask(strict, prompt=prompt, max_tokens=1).status_code

    def told() -> list[requests.Response]:
        answer = ask(strict, {"x-baton-slo-ttft-ms": "150"}, max_tokens=1)
        return [answer] if answer.status_code == 503 else []

    assert told() == []
    before = refused(strict, "slo_unattainable")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        ahead = pool.map(long_prompt, range(36))
        [answer] = harness.wait_for(told, 10, "it is refused while many are ahead")
        assert list(ahead) == [200] * 36
    assert answer.json()["error"]["code"] == "slo_unattainable"
    assert int(answer.headers["retry-after"]) >= 1
    assert 0 < int(answer.headers["retry-after-ms"]) <= 1000 * int(answer.headers["retry-after"])
    assert refused(strict, "slo_unattainable") == before + 1
    # And then it can be.
    assert harness.wait_for(
        lambda: ask(strict, {"x-baton-slo-ttft-ms": "150"}).status_code == 200, 10, "room again"
    )


def test_predictions_are_compared_with_what_came(strict):
    answer = ask(strict, {"x-baton-timings": "1"}, max_tokens=5)
    timings = answer.json()["baton"]
    assert timings["predicted_ttft_ms"] > 1
    assert timings["predicted_tpot_ms"] > 1
    line = log_of(strict, answer)
    assert re.search(r" predicted_ttft_ms=[\d.]+ predicted_tpot_ms=[\d.]+", line)
    told = {
        (s.labels["what"], s.labels["quantile"])
        for s in strict.metrics().samples("baton_latency_actual_ratio")
    }
    assert told == {(what, q) for what in ("ttft", "tpot") for q in ("0.05", "0.5", "0.95")}


def test_whom_the_queue_has_no_room_for_is_refused_and_counted(start_cluster, tiny):
    options = {"slo_class": ["a: ttft=1s, tpot=1s"], "max_waiting": 0}
    cluster = start_cluster(tiny, options, mixed=1)
    answer = ask(cluster)
    assert answer.status_code == 503
    assert "refused=overloaded slo=a slo_result=refused" in log_of(cluster, answer)
    assert count(cluster, "a", "refused") == 1
    results = {s.labels["result"] for s in cluster.metrics().samples("baton_slo_requests_total")}
    assert results == {
        "met", "missed_ttft", "missed_tpot", "missed_both", "refused", "failed", "cancelled"
    }  # fmt: skip
