"""--access-log: a line of JSON a request, whatever becomes of it; workers say of its id, too."""

import json
import os
import pathlib
import signal
import socket

import api
import harness
import pytest
import requests

PROMPT = "the baton goes from hand to hand " * 8


class Log:
    """The access log of one router, and what it has of an id."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def lines(self) -> list[dict]:
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def of(self, name: str) -> dict:
        return harness.wait_for(
            lambda: next((x for x in self.lines() if x["id"] == name), None), 5, f"line of {name}"
        )


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Log:
    return Log(tmp_path_factory.mktemp("access") / "access.jsonl")


@pytest.fixture(scope="module")
def cluster(start_shared_cluster, tiny, log):
    options = harness.ALL_HANDED_OFF | {"access_log": log.path}
    return start_shared_cluster(tiny, options, prefill=1, decode=1)


def ask(cluster, name: str, **fields) -> requests.Response:
    body = {"prompt": PROMPT, "max_tokens": 5, "ignore_eos": True} | fields
    return api.post(cluster, "/v1/completions", body, headers={"x-request-id": name})


def test_a_request_has_what_it_used_and_where_it_was(cluster, log):
    answer = ask(cluster, "first")
    assert answer.headers["x-request-id"] == "first"
    usage = answer.json()["usage"]
    line = log.of("first")
    assert line["status"] == 200 and line["reason"] == line["outcome"] == "ok"
    assert line["method"] == "POST" and line["path"] == "/v1/completions"
    assert line["model"] == cluster.model_name and line["class"] == "default"
    assert line["prompt_tokens"] == usage["prompt_tokens"] and line["output_tokens"] == 5
    assert line["prefill"] == "prefill-0" and line["decode"] == "decode-0"
    assert line["kv_bytes"] > 0 and line["retries"] == 0
    assert 0 < line["ttft_ms"] <= line["ms"] and line["tpot_ms"] > 0
    assert line["bytes"] > len(answer.content)


def test_cached_tokens_are_those_of_the_answer(cluster, log):
    ask(cluster, "cold", prompt="twice " * 40)
    usage = ask(cluster, "warm", prompt="twice " * 40).json()["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    assert log.of("cold")["cached_tokens"] == 0 and log.of("warm")["cached_tokens"] == cached


def test_an_id_that_is_unfit_is_replaced(cluster, log):
    for unfit in ["a b", "x" * 65, 'quo"te', "für"]:
        answer = ask(cluster, unfit.encode(), max_tokens=1)
        name = answer.headers["x-request-id"]
        assert name != unfit and name.isascii()
        assert log.of(name)["status"] == 200


def test_workers_log_the_id(cluster):
    ask(cluster, "to-be-found")
    for worker in cluster.workers.values():
        text = worker.process.log.read_text
        harness.wait_for(lambda text=text: " id=to-be-found " in text(), 5, worker.name)


def test_what_is_turned_away_says_why(cluster, log):
    assert ask(cluster, "wrong", max_tokens=-1).status_code == 400
    assert log.of("wrong")["status"] == 400 and "model" not in log.of("wrong")
    assert ask(cluster, "other", model="none").status_code == 404
    assert log.of("other")["reason"] == "model_not_found"
    requests.get(cluster.url + "/nowhere", headers={"x-request-id": "lost"}, timeout=5)
    assert log.of("lost")["reason"] == "not_found"


def test_probes_are_not_logged(cluster, log):
    for path in ["/health", "/metrics", "/v1/models"]:
        requests.get(cluster.url + path, headers={"x-request-id": "probe"}, timeout=5)
    ask(cluster, "after-the-probes", max_tokens=1)
    log.of("after-the-probes")
    assert [x for x in log.lines() if x["id"] == "probe"] == []


def test_a_client_that_leaves_is_charged_what_it_got(cluster, log):
    most = 3500
    body = json.dumps({"model": cluster.model_name, "prompt": PROMPT, "max_tokens": most,
                       "ignore_eos": True, "stream": True})  # fmt: skip
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nx-request-id: gone\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    decode = cluster.workers["decode-0"].process.popen
    try:
        with socket.create_connection(("127.0.0.1", cluster.port)) as client:
            client.sendall((head + body).encode())
            got = b""
            while got.count(b"data:") < 3:
                got += client.recv(4096)
            decode.send_signal(signal.SIGSTOP)  # or the answer may end before the client is gone
        line = log.of("gone")
    finally:
        decode.send_signal(signal.SIGCONT)
    assert line["reason"] == line["outcome"] == "disconnected"
    assert line["slo_result"] == "cancelled" and line["prompt_tokens"] > 0
    assert 3 <= line["output_tokens"] < most


def test_nothing_that_was_said_is_in_it(cluster, log):
    ask(cluster, "secret", prompt="the word is xyzzy", logprobs=1)
    log.of("secret")
    assert "xyzzy" not in log.path.read_text()
    assert log.path.stat().st_mode & 0o007 == 0


def test_sighup_opens_it_anew(cluster, log):
    ask(cluster, "before", max_tokens=1)
    log.of("before")
    old = log.path.with_suffix(".1")
    log.path.rename(old)
    os.kill(cluster.router.pid, signal.SIGHUP)
    harness.wait_for(log.path.exists, 5, "a new file")
    ask(cluster, "after", max_tokens=1)
    log.of("after")
    assert "after" not in {json.loads(line)["id"] for line in old.read_text().splitlines()}
    assert cluster.metrics().sum("baton_router_access_log_dropped_total") == 0


def test_a_retry_is_counted_once(start_cluster, medium, tmp_path):
    """What a worker's death makes be computed again is no usage of the client's."""
    log = Log(tmp_path / "access.jsonl")
    options = harness.TAKING_TURNS | {"access_log": log.path}
    cluster = start_cluster(medium, options, prefill=1, decode=2, chunk_tokens=32)
    body = {"model": cluster.model_name, "prompt": PROMPT, "max_tokens": 3000, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    headers = {"x-request-id": "survivor"}
    with requests.post(cluster.url + "/v1/completions", json=body, headers=headers, stream=True,
                       timeout=60 * harness.PATIENCE) as answer:  # fmt: skip
        events = (line for line in answer.iter_lines() if line.startswith(b"data: {"))
        for _ in range(20):
            next(events)
        serving = next(
            name for name in ["decode-0", "decode-1"]
            if cluster.metrics(name).sum("vllm:num_requests_running") > 0
        )  # fmt: skip
        cluster.kill_worker(serving)
        usage = [json.loads(line[6:]) for line in events][-1]["usage"]
    line = log.of("survivor")
    assert line["retries"] >= 1 and line["resumes"] == 1 and line["reason"] == "ok"
    assert line["output_tokens"] == usage["completion_tokens"] == 3000
    assert line["prompt_tokens"] == usage["prompt_tokens"]
    assert line["cached_tokens"] == 0 and line["decode"] != serving
    assert len([x for x in log.lines() if x["id"] == "survivor"]) == 1


def test_what_is_in_flight_is_shown_to_admins(start_cluster, medium, tmp_path):
    harness.write_private(tmp_path / "admin", "an-admin\n")
    options = harness.ALL_HANDED_OFF | {"admin_key_file": tmp_path / "admin"}
    cluster = start_cluster(medium, options, prefill=1, decode=1)
    url = cluster.url + "/debug/requests"
    assert requests.get(url, timeout=5).status_code == 401

    def shown() -> dict:
        return requests.get(url, headers={"Authorization": "Bearer an-admin"}, timeout=5).json()

    body = {"model": cluster.model_name, "prompt": PROMPT, "max_tokens": 3000, "ignore_eos": True,
            "stream": True}  # fmt: skip
    with requests.post(cluster.url + "/v1/completions", json=body, stream=True, timeout=60,
                       headers={"x-request-id": "watched"}) as answer:  # fmt: skip
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
        now = shown()
        assert now["in_flight"] == now["shown"] == 1
        request = now["requests"][0]
        assert request["id"] == "watched" and 0 < request["output_tokens"] < 3000
        part = request["served"][0]
        assert part["stage"] == "decode" and part["decode"] == "decode-0"
        log = cluster.workers["decode-0"].process.log.read_text()
        assert f"request {part['request']}: id=watched " in log
    harness.wait_for(lambda: shown()["in_flight"] == 0, 5, "the client's leave is noticed")
