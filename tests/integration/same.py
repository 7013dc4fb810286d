"""Requests whose answers must not differ by a byte, whatever computes them."""

import concurrent.futures
import json

import api

WORDS = "the quick brown fox passes the baton over 日本語 and 😀 in 3.14159 laps; "

# Each goes as it is to /v1/completions.
REQUESTS = {
    "greedy": {"prompt": "pass the baton", "max_tokens": 40, "temperature": 0},
    "sampled": {"prompt": "pass it on", "max_tokens": 40, "temperature": 1.0, "seed": 1},
    "filtered": {
        "prompt": "filter", "max_tokens": 40, "temperature": 1.3, "seed": 2,
        "top_k": 50, "top_p": 0.9, "min_p": 0.01,
    },
    "penalized": {
        "prompt": "again and again", "max_tokens": 40, "temperature": 0.9, "seed": 3,
        "presence_penalty": 0.7, "frequency_penalty": 0.4, "repetition_penalty": 1.1,
        "logit_bias": {"100": 2.5, "101": -100},
    },
    "choices": {"prompt": "fork here", "max_tokens": 24, "temperature": 1.0, "seed": 4, "n": 3},
    "logprobs": {
        "prompt": "show your work", "max_tokens": 24, "temperature": 0.8, "seed": 5, "logprobs": 4,
    },
    "one block": {"prompt": list(range(40, 56)), "max_tokens": 20, "temperature": 0},
    "one tile": {"prompt": [7 + i % 400 for i in range(256)], "max_tokens": 20, "temperature": 0},
    "long": {"prompt": WORDS * 20, "max_tokens": 40, "temperature": 0, "logprobs": 1},
    "long sampled": {"prompt": WORDS * 12, "max_tokens": 40, "temperature": 1.0, "seed": 6},
    "one token": {"prompt": "short", "max_tokens": 1, "temperature": 0},
}  # fmt: skip


def answer(cluster, request: dict) -> str:
    """What must not change by a byte: the choices."""
    return json.dumps(api.complete(cluster, **request)["choices"], sort_keys=True)


def answers(cluster, requests: dict) -> dict[str, str]:
    return {name: answer(cluster, request) for name, request in requests.items()}


def answers_together(cluster, requests: dict) -> dict[str, str]:
    """All at once, among fillers up to sixteen."""
    fillers = [
        {"prompt": f"filler {i} " + WORDS * i, "max_tokens": 60, "seed": 100 + i}
        for i in range(16 - len(requests))
    ]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        others = [pool.submit(answer, cluster, filler) for filler in fillers]
        waiting = {name: pool.submit(answer, cluster, r) for name, r in requests.items()}
        found = {name: future.result() for name, future in waiting.items()}
        for other in others:
            other.result()
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return [f"{name}: {found[name]} != {expected[name]}" for name in expected
            if found[name] != expected[name]]  # fmt: skip
