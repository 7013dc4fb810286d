"""The first minutes of a newcomer: `baton up`, as scripts/quickstart.sh runs it."""

import os
import re
import signal
import subprocess
import time

import harness
import pytest
import requests
import sse
from up import Up, cmdline, exists


@pytest.mark.slow
def test_once_with_the_real_model(quickstart_model):
    up = Up(quickstart_model, "--prefill", "1", "--decode", "1",
            "--once", "What is the capital of France?")  # fmt: skip
    status, out, err = up.end(120)
    assert status == 0, err
    assert "Paris" in out
    assert re.search(r"TTFT \d+", err)
    assert re.search(r"TPOT \d+", err)
    assert re.search(r"\d.* [KM]i?B .*(shm|posix|sysv|cma|tcp)", err), err
    up.nothing_is_left()


@pytest.mark.parametrize("pools", [["--prefill", "1", "--decode", "1"], ["--mixed", "1"],
                                   ["--prefill", "2", "--decode", "2"]])  # fmt: skip
def test_once_with_any_pools(tiny, pools):
    up = Up(tiny, *pools, "--once", "hello")
    status, out, err = up.end()
    assert status == 0, err
    assert out.strip()
    up.nothing_is_left()


def test_quiet_prints_the_answer_alone(tiny):
    status, out, err = Up(tiny, "--mixed", "1", "--quiet", "--once", "hello").end()
    assert status == 0
    assert out.strip()
    assert err == ""


def test_a_second_start_is_quick(quickstart_model):
    """Nothing slow is left for a warm start: model, workers and router in a few seconds."""
    started = time.monotonic()
    up = Up(quickstart_model, "--prefill", "1", "--decode", "1")
    up.url()
    took = time.monotonic() - started
    up.popen.send_signal(signal.SIGINT)
    assert up.end()[0] == 0
    assert took < 20 * harness.PATIENCE


def test_ctrl_c_drains(medium):
    up = Up(medium, "--prefill", "1", "--decode", "1")
    url = up.url()
    assert len(up.pids) == 3
    body = {"prompt": "on and on", "max_tokens": 400, "stream": True, "ignore_eos": True}
    body["model"] = requests.get(url + "/v1/models").json()["data"][0]["id"]
    answer = requests.post(url + "/v1/completions", json=body, stream=True, timeout=60)
    chunks = answer.iter_content(None)
    first = next(chunks)

    os.killpg(up.popen.pid, signal.SIGINT)

    events = sse.events_of([first, *chunks])
    assert not any("error" in event for event in events)
    assert sum(bool(e["choices"][0]["finish_reason"]) for e in events if e["choices"]) == 1
    status, _, err = up.end(20)
    assert status == 0, err
    up.nothing_is_left()
    with pytest.raises(requests.ConnectionError):
        requests.get(url + "/health", timeout=2)


def test_a_second_ctrl_c_does_not_wait(medium):
    up = Up(medium, "--mixed", "1")
    url = up.url()
    model = requests.get(url + "/v1/models").json()["data"][0]["id"]
    body = {"model": model, "prompt": "x", "max_tokens": 3900, "stream": True, "ignore_eos": True}
    answer = requests.post(url + "/v1/completions", json=body, stream=True, timeout=60)
    chunks = answer.iter_content(None)  # to be kept: the connection ends with it
    next(chunks)
    [router] = [pid for pid in up.pids if b"router" in cmdline(pid)]
    os.kill(router, signal.SIGSTOP)  # one that has not looked at the first signal yet
    up.popen.send_signal(signal.SIGINT)
    up.read_until("Stopping")
    up.popen.send_signal(signal.SIGINT)
    assert up.popen.wait(5 * harness.PATIENCE) == 130
    os.kill(router, signal.SIGCONT)
    # Much sooner than its drain, which waits 10 s for a client that does not read.
    harness.wait_for(lambda: not any(map(exists, up.pids)), 5, "workers and router are gone")
    up.nothing_is_left()


def test_a_worker_killed_under_up_comes_back(tiny):
    up = Up(tiny, "--prefill", "1", "--decode", "1")
    url = up.url()
    [decode] = [pid for pid in up.pids if b"decode-0" in cmdline(pid)]
    os.kill(decode, signal.SIGKILL)
    body = {"prompt": "x", "max_tokens": 3}
    body["model"] = requests.get(url + "/v1/models").json()["data"][0]["id"]
    harness.wait_for(
        lambda: requests.post(url + "/v1/completions", json=body, timeout=20).status_code == 200,
        20,
        "served again",
    )
    up.pids = harness.descendants(up.popen.pid)
    up.popen.send_signal(signal.SIGTERM)
    assert up.end()[0] == 0
    up.nothing_is_left()


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["up"], "model"),
        (["up", "--model", "/nonexistent"], "/nonexistent"),
        (["up", "--no-such-flag"], "no-such-flag"),
        (["frobnicate"], "frobnicate"),
        (["worker", "--model", "m", "--role", "juggler"], "juggler"),
        (["worker", "--model", "m", "--threads", "many"], "threads"),
        (["router", "--model", "m"], "workers"),
        (["router", "--model", "m", "--workers", "nonsense"], "nonsense"),
        (["router", "--config", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (["worker", "--model", "m", "--listen", "nonsense"], "'nonsense'"),
        (["worker", "--model", "m", "--metrics-listen", "1"], "'1'"),
        (["up", "--config", "/tmp"], "'/tmp'"),
        (["worker", "--config", "/"], "'/'"),
        (["up", "--model", "m", "--once", ""], "--once is empty"),
        (["up", "--model", "m", "--log-level", "verbose"], "--log-level 'verbose'"),
        (["worker", "--model", "m", "--log-level", "off"], "debug, info, warn, error"),
        (["router", "--model", "m", "--workers", "a:1", "--log-level", ""], "--log-level"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(args, sentence):
    run = subprocess.run([harness.BIN, *args], capture_output=True, text=True, timeout=20)
    assert run.returncode == (1 if "/nonexistent" in args else 2)
    assert sentence in run.stderr


def test_what_a_start_throws_is_one_sentence(tiny):
    """As on a processor without AVX2."""
    run = subprocess.run([harness.BIN, "worker", "--model", tiny], capture_output=True, text=True,
                         timeout=20, env=os.environ | {"BATON_MAX_ISA": "foo"})  # fmt: skip
    assert run.returncode == 1
    assert re.search(r"^baton worker: .*foo.*\n\Z", run.stderr, re.M), run.stderr
    assert "terminate" not in run.stderr
    status, _, err = Up(tiny, "--mixed", "1", env={"BATON_MAX_ISA": "foo"}).end()
    assert status == 1
    assert "mixed-0 did not start: exit status 1" in err


def test_a_port_in_use_is_said(tiny, split):
    run = subprocess.run(
        [harness.BIN, "up", "--model", tiny, "--mixed", "1", "--port", str(split.port)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode > 0
    assert str(split.port) in run.stderr
