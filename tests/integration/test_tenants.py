"""--tenants-file: who is let in, what each may use, whose prefixes are found, and reloading it."""

import json
import os
import pathlib
import signal

import api
import harness
import openai
import pytest
import requests

TENANTS = """\
tenants:
  acme:
    keys: [key-of-acme]
    classes: [batch]
    requests_per_minute: 1000
  other:
    keys: [key-of-other, second-key-of-other]
  small:
    keys: [key-of-small]
    requests_per_minute: 2
    max_concurrent: 1
"""
CLASSES = ["interactive: ttft=600s", "batch: best-effort"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tenants")
    harness.write_private(folder / "tenants.yaml", TENANTS)
    harness.write_private(folder / "admin", "an-admin\n")
    return folder


@pytest.fixture(scope="module")
def cluster(start_shared_cluster, tiny, folder):
    options = harness.ALL_HANDED_OFF | {
        "tenants_file": folder / "tenants.yaml",
        "admin_key_file": folder / "admin",
        "access_log": folder / "access.jsonl",
        "slo_class": CLASSES,
    }
    cluster = start_shared_cluster(tiny, options, prefill=1, decode=1)
    listed = requests.get(cluster.url + "/v1/models", headers=bearer("key-of-other"), timeout=5)
    cluster.model_name = listed.json()["data"][0]["id"]
    return cluster


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(cluster, tenant: str, **fields) -> requests.Response:
    body = {"prompt": "the baton", "max_tokens": 2, "ignore_eos": True} | fields
    return api.post(cluster, "/v1/completions", body, headers=bearer(f"key-of-{tenant}"))


def cached(cluster, tenant: str, prompt: str) -> int:
    answer = ask(cluster, tenant, prompt=prompt)
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_only_their_keys_open(cluster):
    assert ask(cluster, "nobody").status_code == 401
    assert requests.get(cluster.url + "/v1/models", timeout=5).status_code == 401
    for key in ["key-of-other", "second-key-of-other"]:
        answer = requests.get(cluster.url + "/v1/models", headers=bearer(key), timeout=5)
        assert answer.status_code == 200


def test_a_prefix_is_found_by_its_tenant_alone(cluster):
    prompt = "what one of them has said " * 20
    assert cached(cluster, "acme", prompt) == 0
    assert cached(cluster, "other", prompt) == 0
    assert cached(cluster, "acme", prompt) > 0
    assert cached(cluster, "other", prompt) > 0


def test_classes_are_those_it_may_use(cluster, folder):
    assert ask(cluster, "acme").status_code == 200
    refused = ask(cluster, "acme", service_tier="interactive")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "class_not_allowed"
    assert ask(cluster, "other", service_tier="interactive").status_code == 200


def test_usage_is_told_apart(cluster, folder):
    def used(kind: str) -> float:
        return cluster.metrics().sum("baton_tenant_tokens_total", tenant="other", kind=kind)

    before = {kind: used(kind) for kind in ["prompt", "output"]}
    answer = ask(cluster, "other", max_tokens=7)
    usage = answer.json()["usage"]
    assert used("output") - before["output"] == usage["completion_tokens"] == 7
    assert used("prompt") - before["prompt"] == usage["prompt_tokens"]

    def lines() -> list[dict]:
        text = (folder / "access.jsonl").read_text()
        return [x for x in map(json.loads, text.splitlines())
                if x["id"] == answer.headers["x-request-id"]]  # fmt: skip

    line = harness.wait_for(lines, 5, "its line")[0]
    assert line["tenant"] == "other" and line["output_tokens"] == 7


def test_a_quota_is_429_and_says_when_to_come_back(cluster):
    assert ask(cluster, "small").status_code == 200
    assert ask(cluster, "small").status_code == 200
    refused = ask(cluster, "small")
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert error["code"] == "rate_limit_exceeded" and error["param"] == "requests_per_minute"
    assert 20 <= int(refused.headers["retry-after"]) <= 30
    assert "retry-after-ms" in refused.headers
    assert ask(cluster, "other").status_code == 200
    with openai.OpenAI(base_url=cluster.url + "/v1", api_key="key-of-small", max_retries=0) as c:
        with pytest.raises(openai.RateLimitError):
            c.completions.create(model=cluster.model_name, prompt="x", max_tokens=1)


def reloaded(cluster, text: str):
    """Tells the router to read its files again, and waits until it has said what came of it."""
    path = cluster.router.log
    before = path.read_text().count(text)
    os.kill(cluster.router.pid, signal.SIGHUP)
    harness.wait_for(lambda: path.read_text().count(text) > before, 5, text)


def test_a_reload_is_whole_or_not_at_all(cluster, folder):
    file = folder / "tenants.yaml"
    harness.write_private(file, TENANTS.replace("key-of-acme", "new-key") + "    priority: 9\n")
    reloaded(cluster, "keys and tenants stay as they were")
    assert "small: priority must be" in cluster.router.log.read_text()
    assert ask(cluster, "acme").status_code == 200

    harness.write_private(file, TENANTS.replace("key-of-acme", "key-of-newcomer") + "    priority: 1\n")
    harness.write_private(folder / "admin", "another-admin\n")
    reloaded(cluster, "keys and tenants were read again; 3 tenants")
    assert ask(cluster, "acme").status_code == 401
    assert ask(cluster, "newcomer").status_code == 200
    assert ask(cluster, "small").status_code == 429  # what it used stays used
    debug = cluster.url + "/debug/requests"
    assert requests.get(debug, headers=bearer("an-admin"), timeout=5).status_code == 401
    assert requests.get(debug, headers=bearer("another-admin"), timeout=5).status_code == 200

    file.write_text(TENANTS)
    file.chmod(0o644)
    reloaded(cluster, "keys and tenants stay as they were")
    assert "tenants.yaml': everybody may read it; chmod 600" in cluster.router.log.read_text()
    assert ask(cluster, "newcomer").status_code == 200
    file.unlink()
    reloaded(cluster, "keys and tenants stay as they were")
    assert ask(cluster, "newcomer").status_code == 200


def test_no_key_is_logged(cluster, folder):
    logs = [process.log for process in cluster.processes()] + [folder / "access.jsonl"]
    for log in logs:
        text = log.read_text()
        assert "key-of-" not in text and "an-admin" not in text, log


def test_a_reload_that_comes_before_it_serves_is_done_then(tiny, folder, tmp_path):
    harness.write_private(folder / "early.yaml", TENANTS)
    options = {
        "listen": "127.0.0.1:0",
        "workers": ["127.0.0.1:1"],  # nobody
        "model": tiny,
        "tenants_file": folder / "early.yaml",
        "slo_class": CLASSES,
    }
    router = harness.Process("router", "router", options, tmp_path)

    def holds_hangups() -> bool:
        status = pathlib.Path(f"/proc/{router.pid}/status").read_text()
        blocked = next(line for line in status.splitlines() if line.startswith("SigBlk"))
        return bool(int(blocked.split()[1], 16) & 1 << (signal.SIGHUP - 1))

    try:
        while not holds_hangups():  # a few milliseconds: not one may be missed
            assert router.popen.poll() is None
        os.kill(router.pid, signal.SIGHUP)
        router.wait_ready()
        harness.wait_for(lambda: "were read again" in router.log.read_text(), 5, "a reload")
    finally:
        assert router.stop() == 0
