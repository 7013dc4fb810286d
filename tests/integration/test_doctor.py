"""`baton doctor`: what it finds, what it says to do, and that two of them measure each other."""

import json
import re
import signal
import socket
import subprocess

import harness
import pytest


def doctor(*args, status: int = 0) -> str:
    run = subprocess.run(
        [harness.BIN, "doctor", *map(str, args)],
        capture_output=True, text=True, timeout=60 * harness.PATIENCE,
    )  # fmt: skip
    assert run.returncode == status, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_a_sound_machine_has_nothing_to_mend(tiny, tmp_path):
    found = tmp_path / "found.json"
    shown = doctor("--model", tiny, "--kv-gib", 0.05, "--link-mib", 4, "--link-seconds", 0.1,
                   "--json", found)  # fmt: skip
    assert "KV over tcp" in shown and "GB/s over tcp" in shown
    assert re.search(r"KV on one host +[\d.]+ GB/s over sysv", shown)
    report = json.loads(found.read_text())
    assert report["ok"] and all(f["level"] != "ERROR" for f in report["findings"])
    assert {"CPU", "memory", "model", "tokenizer"} <= {f["about"] for f in report["findings"]}


def test_what_is_wrong_is_named_with_what_to_do(tiny, tmp_path):
    (tmp_path / "worker.yaml").write_text(f"model: {tiny}\nkv_gibs: 3\n")
    (tmp_path / "router.yaml").write_text(f"model: {tiny}\nworkers: [127.0.0.1:1]\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        shown = doctor("--links=false", "--listen", f"127.0.0.1:{port}", "--model", tmp_path,
                       "--worker-config", tmp_path / "worker.yaml",
                       "--router-config", tmp_path / "router.yaml", status=1)  # fmt: skip
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in shown
    assert "worker.yaml: " in shown and "kv_gibs" in shown
    assert "router.yaml is one for baton router" in shown
    errors = [line for line in shown.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 3 and shown.count("->") >= 3
    assert "3 errors" in shown


def test_no_gpu_is_an_error_only_where_one_is_wanted():
    if "compute capability" in doctor("--links=false"):
        pytest.skip("there is a GPU here")
    assert "ERROR    GPU" in doctor("--links=false", "--device", "cuda", status=1)


def test_its_profile_is_one_for_emulated_workers(tiny, tmp_path, start_cluster):
    profile = tmp_path / "profile.yaml"
    shown = doctor("--links=false", "--model", tiny, "--profile", profile,
                   "--profile-seconds", 0.5, "--chunk-tokens", 64)  # fmt: skip
    assert "step times" in shown
    cluster = start_cluster(tiny, mixed=1, device="emulated", profile=profile, kv_gib=0.5)
    assert cluster.is_ready()


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text("a-secret-that-both-of-them-know-well\n")
    file.chmod(0o600)
    return file


def test_two_hosts_measure_each_other(secret, tmp_path):
    small = ["--links=false", "--link-mib", "4", "--link-seconds", "0.1"]
    waiting = subprocess.Popen(
        [harness.BIN, "doctor", *small, "--serve", "127.0.0.1:0", "--secret-file", secret],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while not (said := re.search(r"waiting on port (\d+)", waiting.stdout.readline())):
            assert waiting.poll() is None
        peer = ["--peer", f"127.0.0.1:{said[1]}"]
        for _ in range(2):
            assert "GB/s over" in doctor(*small, *peer, "--secret-file", secret)
        other = tmp_path / "other"
        other.write_text("another-secret-that-only-one-of-them-knows\n")
        other.chmod(0o600)
        refused = doctor(*small, *peer, "--secret-file", other, status=1)
        assert "ERROR    KV from peer" in refused and "--serve there" in refused
    finally:
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(10 * harness.PATIENCE) == 0


def test_beyond_loopback_it_waits_for_those_alone_who_know_the_secret():
    assert "--secret-file" in doctor("--serve", "0.0.0.0:0", "--links=false", status=2)


@pytest.mark.parametrize(
    "text, why",
    [
        ("listen: 0.0.0.0:9000", "trusted_network"),
        ("kv_from: device", "on device cuda alone"),
        ("transport: pigeon", "none of auto, shm, tcp"),
    ],
)
def test_what_a_worker_would_refuse_at_once_is_no_file_for_one(tiny, tmp_path, text, why):
    (tmp_path / "worker.yaml").write_text(f"model: {tiny}\nrole: prefill\n{text}\n")
    shown = doctor("--links=false", "--worker-config", tmp_path / "worker.yaml", status=1)
    assert "ERROR    config" in shown and why in shown


@pytest.mark.parametrize(
    "text, why",
    [
        ("transport: pigeon", "none of auto, shm, tcp"),
        ("kv_from: device", "on device cuda alone"),
        ("block_tokens: 24", "--block-tokens"),
        ("decode: 0\nprefill: 0\nauto: 1\nchunk_tokens: 100", "--chunk-tokens"),
        ("min_prefill: 1\npolicy: by_star_sign", "there is no policy"),
    ],
)
def test_what_a_child_would_refuse_is_no_file_for_a_cluster(tiny, tmp_path, text, why):
    (tmp_path / "up.yaml").write_text(f"model: {tiny}\n{text}\n")
    shown = doctor("--links=false", "--up-config", tmp_path / "up.yaml", status=1)
    assert "ERROR    config" in shown and why in shown
    (tmp_path / "up.yaml").write_text(f"model: {tiny}\n")
    assert "is one for baton up" in doctor("--links=false", "--up-config", tmp_path / "up.yaml")
