"""What `baton up` makes of its options, its environment and signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap

import harness
import pytest
import requests
import sse
from up import Up


def has_address(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.2", r"http://127\.0\.0\.2:\d+/v1"),
        ("localhost", r"http://localhost:\d+/v1"),
        ("0.0.0.0", r"http://127\.0\.0\.1:\d+/v1"),
        ("::1", r"http://\[::1\]:\d+/v1"),
        ("[::]", r"http://\[::1\]:\d+/v1"),
    ],
)
def test_any_host_is_asked_where_it_listens(tiny, host, shown):
    if ":" in host and not has_address("::1"):
        pytest.skip("no IPv6 here")
    status, out, err = Up(tiny, "--mixed", "1", "--host", host, "--once", "hello").end()
    assert status == 0, err
    assert out.strip()
    assert re.search(shown, err)


def test_children_take_no_options_from_the_environment(tiny, tmp_path):
    """`mixed` and `ask_tokens` are keys that a worker or a router would refuse."""
    config = tmp_path / "cluster.yaml"
    config.write_text("mixed: 1\nask_tokens: 5\n")
    env = {
        "BATON_CONFIG": str(config),
        "BATON_MODEL_NAME": "by-another-name",
        "BATON_ONCE": "hello",
        "BATON_TRANSPORT": "auto",
        "BATON_WORKERS": "127.0.0.1:1",
        "BATON_READY_FD": "0",
    }
    status, out, err = Up(tiny, env=env).end()
    assert status == 0, err
    assert out.strip()
    assert "1 router + 1 mixed," in err


def test_the_model_answers_to_the_name_given(tiny):
    up = Up(tiny, "--mixed", "1", "--model-name", "by-another-name", "--once", "hello")
    status, out, err = up.end()
    assert status == 0, err
    assert out.strip()


def test_a_mixed_worker_from_a_variable_comes_alone(tiny):
    status, _, err = Up(tiny, "--once", "hello", env={"BATON_MIXED": "1"}).end()
    assert status == 0, err
    assert "1 router + 1 mixed," in err


def test_a_signal_in_start_up_is_no_success(quickstart_model):
    up = Up(quickstart_model, "--mixed", "1")
    # Its model takes most of a second to load; held, it does not serve before the signal.
    [worker] = harness.wait_for(lambda: harness.descendants(up.popen.pid), 20, "a worker starts")
    os.kill(worker, signal.SIGSTOP)
    up.see()
    up.popen.send_signal(signal.SIGTERM)
    os.kill(worker, signal.SIGCONT)
    status, _, err = up.end()
    assert "Baton is up" not in err
    assert status == 128 + signal.SIGTERM, err
    up.nothing_is_left()


def test_a_signal_within_the_one_answer_is_no_success(medium):
    up = Up(medium, "--mixed", "1", "--log-level", "info", "--ask-tokens", "2000",
            "--once", "on and on")  # fmt: skip
    up.url()
    up.popen.stdout.read(1)  # the answer has begun
    [worker] = [pid for pid in up.pids if is_worker(pid)]
    os.kill(worker, signal.SIGSTOP)
    up.popen.send_signal(signal.SIGINT)
    up.read_until(r"\[router\] draining")
    os.kill(worker, signal.SIGCONT)
    status, _, err = up.end()
    assert status == 128 + signal.SIGINT, err
    up.nothing_is_left()


def is_worker(pid: int) -> bool:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"worker" in file.read().split(b"\0")


def test_every_process_is_called_baton(tiny):
    up = Up(tiny, "--prefill", "1", "--decode", "1")
    up.url()
    assert [name_of(pid) for pid in [up.popen.pid, *up.pids]] == ["baton"] * 4
    up.popen.send_signal(signal.SIGINT)
    assert up.end()[0] == 0


def name_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def test_quiet_still_says_that_there_is_no_answer(tiny):
    up = Up(tiny, "--mixed", "1", "--quiet", "--max-context", "64", "--once", "word " * 500)
    status, out, err = up.end()
    assert status == 1
    assert out.strip() == ""
    assert "no answer: 400" in err


KEYS = "\n# of the team\nsecret-1\nsecret-2\n"


def test_keys_may_have_comments_and_are_not_printed(tiny, tmp_path):
    harness.write_private(tmp_path / "keys", KEYS)
    up = Up(tiny, "--mixed", "1", "--api-key-file", str(tmp_path / "keys"), "--once", "hello")
    status, out, err = up.end()
    assert status == 0, err
    assert out.strip()
    assert "secret" not in err


def test_a_file_without_keys_is_refused(tiny, tmp_path):
    harness.write_private(tmp_path / "keys", "# none yet\n")
    status, _, err = Up(tiny, "--api-key-file", str(tmp_path / "keys")).end()
    assert status == 2
    assert "no key in" in err


TENANTS = "tenants:\n  acme:\n    keys: [secret-of-acme]\n"


def test_tenants_and_admins_have_their_keys(tiny, tmp_path):
    harness.write_private(tmp_path / "tenants.yaml", TENANTS)
    harness.write_private(tmp_path / "admin", "secret-of-admin\n")
    files = ["--tenants-file", str(tmp_path / "tenants.yaml"),
             "--admin-key-file", str(tmp_path / "admin")]  # fmt: skip
    up = Up(tiny, "--mixed", "1", *files)
    url = up.url()

    def status(path: str, key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return requests.get(url + path, headers=headers, timeout=10).status_code

    assert status("/v1/models", "secret-of-acme") == 200
    assert status("/v1/models", "another") == 401
    assert status("/debug/requests", "secret-of-admin") == 200
    assert status("/debug/requests", "secret-of-acme") == 401
    up.popen.send_signal(signal.SIGINT)
    _, out, err = up.end()
    assert "secret" not in up.said + out + err
    up.nothing_is_left()


def test_tenants_that_cannot_be_are_refused_before_anything_starts(tiny, tmp_path):
    harness.write_private(tmp_path / "tenants.yaml", TENANTS + "    priority: 9\n")
    status, _, err = Up(tiny, "--tenants-file", str(tmp_path / "tenants.yaml")).end()
    assert status == 2 and "acme: priority must be" in err
    harness.write_private(tmp_path / "tenants.yaml", TENANTS)
    status, _, err = Up(tiny, "--tenants-file", str(tmp_path / "tenants.yaml"),
                        "--once", "hello").end()  # fmt: skip
    assert status == 2 and "no key to ask with" in err


def some_text(command: list[str], env: dict, text_of):
    """The first text that the command prints. An answer drawn at random may end before any."""
    for _ in range(5):
        run = subprocess.run(command, capture_output=True, timeout=30 * harness.PATIENCE, env=env)
        assert run.returncode == 0, run
        if text := text_of(run.stdout):
            return text
    return None


@pytest.mark.parametrize("keys", [None, KEYS], ids=["open", "keys"])
def test_what_the_banner_shows_works_as_it_stands(tiny, tmp_path, keys):
    args, env = [], dict(os.environ)
    if keys:
        harness.write_private(tmp_path / "keys", keys)
        args = ["--api-key-file", str(tmp_path / "keys")]
        env["API_KEY"] = "secret-2"
    up = Up(tiny, *args)
    url = up.url()
    up.read_until("Ctrl-C")
    [command] = re.findall(r"^ *(curl .*?[^\\])$", up.said, re.M | re.S)
    assert some_text(["bash", "-c", command], env, lambda out: sse.text_of(sse.events_of([out])))

    [program] = re.findall(r"^ *((?:import os\n *)?from openai .*?)\n\n", up.said, re.M | re.S)
    assert f'base_url="{url}/v1"' in program
    assert some_text([sys.executable, "-c", textwrap.dedent("  " + program)], env, bytes.strip)

    up.popen.send_signal(signal.SIGINT)
    assert up.end()[0] == 0
    up.nothing_is_left()
