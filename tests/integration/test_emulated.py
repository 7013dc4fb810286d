"""Emulated workers: real processes without a model, whose every token can be checked."""

import concurrent.futures
import csv
import random
import shutil
import signal
import subprocess
import time

import api
import harness
import hash_model
import kv_memory
import pytest
import requests
import up
import yaml

PROFILES = harness.ROOT / "deploy/profiles"
VOCAB, EOS = 512, (2,)  # of tiny_model
OPTIONS = {
    "device": "emulated",
    "profile": PROFILES / "h200-llama3-8b.yaml",
    "kv_gib": 0.5,  # 4096 tokens
    "chunk_tokens": 64,
}
SETUPS = {
    "mixed": {"mixed": 1},
    "split": {"prefill": 1, "decode": 1},
    "split over TCP": {"prefill": 1, "decode": 1, "transport": "tcp"},
    "two of each": {"prefill": 2, "decode": 2},
    "roles that move": {"auto": 3},
    "preempted": {"prefill": 1, "decode": 1, "preempt_every": 7},
}


@pytest.fixture(scope="module")
def no_weights(tiny, tmp_path_factory):
    """A model's tokenizer and configuration, and nothing else."""
    folder = tmp_path_factory.mktemp("no-weights") / "tiny"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture(scope="module", params=SETUPS)
def cluster(request, start_shared_cluster, no_weights):
    return start_shared_cluster(no_weights, **OPTIONS, **SETUPS[request.param])


def text_of(cluster, tokens: list[int]) -> str:
    """As answers have it: without special tokens, of which the stop token is never drawn."""
    answer = requests.post(
        cluster.url + "/detokenize", json={"model": cluster.model_name, "tokens": tokens}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["prompt"].replace("<|endoftext|>", "").replace("<|im_start|>", "")


def some_request(number: int) -> dict:
    draw = random.Random(number)
    return {
        "prompt": [draw.randrange(3, 300) for _ in range(draw.randrange(1, 400))],
        "max_tokens": draw.randrange(1, 60),
        "seed": number,
        "n": 3 if number % 5 == 0 else 1,
    }


def check(cluster, fields: dict, choices: list[dict]):
    assert [choice["index"] for choice in choices] == list(range(fields["n"]))
    for choice in choices:
        tokens = hash_model.output(
            fields["prompt"], fields["max_tokens"], VOCAB, EOS, fields["seed"], choice["index"]
        )
        assert choice["text"] == text_of(cluster, tokens), fields["seed"]
        assert choice["finish_reason"] == "length"


def ask(cluster, number: int):
    fields = some_request(number)
    check(cluster, fields, api.complete(cluster, **fields)["choices"])


def is_idle(cluster) -> bool:
    return all(
        cluster.metrics(name).sum("baton_kv_blocks", state=state) == 0
        for name in cluster.workers
        for state in ("active", "quarantined")
    )


def test_every_output_is_what_the_hash_says(cluster):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: ask(cluster, number), range(36)))
    harness.wait_for(lambda: is_idle(cluster), 10, "all blocks come free")


def test_a_cached_prefix_changes_nothing(cluster):
    for _ in range(2):
        ask(cluster, 17)


def test_clients_that_go_away_spoil_nothing(cluster):
    def leave(number: int):
        fields = some_request(number) | {"max_tokens": 500, "stream": True, "n": 1}
        answer = api.post(cluster, "/v1/completions", fields, stream=True)
        lines = answer.iter_lines()
        for _ in range(number % 7):
            next(lines)
        answer.close()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        gone = [pool.submit(leave, 1000 + number) for number in range(24)]
        stayed = [pool.submit(ask, cluster, 2000 + number) for number in range(12)]
        for future in [*gone, *stayed]:
            future.result()
    harness.wait_for(lambda: is_idle(cluster), 10, "all blocks come free")


def test_steps_take_their_time(cluster):
    fields = some_request(3) | {"max_tokens": 60, "n": 1}
    begun = time.monotonic()
    api.complete(cluster, **fields)
    assert time.monotonic() - begun > 60 * 0.0044  # the profile's shortest step


def test_hand_offs_take_their_time(start_cluster, no_weights, tmp_path):
    profile = yaml.safe_load(OPTIONS["profile"].read_text())
    profile["link"]["latency_us"] = 300_000
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(profile))
    options = OPTIONS | SETUPS["split"] | {"profile": tmp_path / "profile.yaml"}
    handed_over = {"local_prefill_tokens": 0}
    cluster = start_cluster(no_weights, router_options=handed_over, **options)
    begun = time.monotonic()
    api.complete(cluster, **some_request(3) | {"max_tokens": 3, "n": 1})
    assert time.monotonic() - begun > 0.3
    # It knew that of the profile.
    ratio = cluster.metrics("decode-0").sum(
        "baton_latency_actual_ratio", what="transfer", quantile="0.5"
    )
    assert 0.9 < ratio < 1.5


def test_a_scored_prompt_is_certain(cluster):
    answer = api.complete(cluster, prompt=[5, 6, 7], max_tokens=2, logprobs=1, echo=True, seed=1)
    logprobs = answer["choices"][0]["logprobs"]["token_logprobs"]
    assert logprobs == [None, 0, 0, 0, 0]


@pytest.mark.parametrize("verify", [True, False])
def test_wrong_kv_is_caught_by_its_digest_or_shows_as_a_wrong_token(
    start_cluster, no_weights, verify
):
    """The second is what makes all of the above mean something."""
    cache_bytes = 2**31 / 23040 * 64  # the profile's bytes a token, and an emulated worker's
    cluster = start_cluster(
        no_weights,
        prefill=1,
        decode=1,
        device="emulated",
        profile=PROFILES / "cpu-smollm2-135m.yaml",
        chunk_tokens=32,
        kv_gib=2,
        prefix_cache=False,
        verify_kv=verify,
    )
    prompt = [3 + i % 400 for i in range(1500)]
    prefill, decode = (cluster.workers[name].process for name in ["prefill-0", "decode-0"])

    def sent(worker: str, kind: str) -> float:
        return cluster.metrics(worker).sum("baton_kv_messages_sent_total", kind=kind)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.complete, cluster, prompt=prompt, max_tokens=20, seed=9)
        # As in test_corruption: the reader stops, what it is to read is changed, it goes on.
        harness.wait_for(lambda: sent("decode-0", "credit") > 0, 20, "a credit")
        decode.popen.send_signal(signal.SIGSTOP)
        try:
            harness.wait_for(lambda: sent("prefill-0", "commit") > 0, 4, "all is computed")
            kv_memory.flip_a_bit_of_each(
                prefill.pid, *kv_memory.cache_of(prefill.pid, cache_bytes), step=512
            )
        finally:
            decode.popen.send_signal(signal.SIGCONT)
        text = waiting.result()["choices"][0]["text"]
    expected = text_of(cluster, hash_model.output(prompt, 20, VOCAB, EOS, seed=9))
    assert (text == expected) == verify
    mismatches = cluster.metrics("decode-0").sum("baton_kv_digest_mismatches_total")
    assert (mismatches > 0) == verify


def test_up_starts_emulated_workers(no_weights):
    command = up.Up(
        no_weights, "--device", "emulated", "--profile", PROFILES / "cpu-smollm2-135m.yaml",
        "--prefill", "2", "--decode", "2", "--quiet", "--once", "hello", "--ask-tokens", "5",
    )  # fmt: skip
    code, out, err = command.end()
    assert code == 0, err
    assert out.strip()


@pytest.mark.parametrize(
    "text, why",
    [
        ("name: [", "profile"),
        ("name: x\n", "kv_bytes_per_token"),
        (None, "cannot read the profile"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_by_name(no_weights, tmp_path, text, why):
    profile = tmp_path / "p.yaml"
    if text is not None:
        profile.write_text(text)
    worker = harness.Process(
        "w", "worker", {"model": no_weights, "device": "emulated", "profile": profile}, tmp_path
    )
    with pytest.raises(AssertionError):
        worker.wait_ready(10)
    assert worker.stop() == 1
    log = worker.log.read_text()
    assert why in log and str(profile) in log


def test_an_emulated_device_needs_a_profile(no_weights, tmp_path):
    worker = harness.Process("w", "worker", {"model": no_weights, "device": "emulated"}, tmp_path)
    with pytest.raises(AssertionError):
        worker.wait_ready(10)
    assert worker.stop() == 2
    assert "--profile" in worker.log.read_text()


def test_tensor_parallelism_is_the_profiles_business(no_weights, tmp_path):
    options = {"model": no_weights, **OPTIONS, "tensor_parallel": 2}
    worker = harness.Process("w", "worker", options, tmp_path)
    with pytest.raises(AssertionError):
        worker.wait_ready(10)
    assert worker.stop() == 1
    assert "tensor_parallel" in worker.log.read_text()


def test_workers_say_how_well_they_know_their_steps(cluster):
    for number in range(3):
        ask(cluster, number)
    told = set()
    for name in cluster.workers:
        for sample in cluster.metrics(name).samples("baton_latency_actual_ratio"):
            assert sample.value > 0
            told.add((sample.labels["what"], sample.labels["quantile"]))
    assert {("prefill_step", q) for q in ("0.05", "0.5", "0.95")} <= told
    assert ("decode_step", "0.5") in told


def test_what_is_recorded_can_be_simulated(start_cluster, no_weights, tmp_path):
    requests_file = tmp_path / "requests.csv"
    steps = {role: tmp_path / f"{role}.csv" for role in ("prefill", "decode")}
    cluster = start_cluster(
        no_weights,
        router_options={"record_requests": requests_file},
        record_steps=steps,
        **OPTIONS | SETUPS["split"],
    )
    sent = [some_request(number) | {"n": 1, "max_tokens": 9} for number in range(6)]
    for fields in sent:
        api.complete(cluster, **fields)
    cluster.stop()

    rows = list(csv.DictReader(requests_file.open()))
    assert [int(row["prompt_tokens"]) for row in rows] == [len(f["prompt"]) for f in sent]
    assert all(row["output_tokens"] == "9" and row["outcome"] == "ok" for row in rows)
    assert all(row["decode"] == "decode-0" for row in rows)
    assert all(float(row["ttft_s"]) > 0.004 and float(row["tpot_s"]) > 0.004 for row in rows)
    arrivals = [float(row["arrival_s"]) for row in rows]
    assert arrivals == sorted(arrivals)
    assert all(float(row["placed_s"]) >= at for row, at in zip(rows, arrivals))

    decoded = [int(row["outputs"]) for row in csv.DictReader(steps["decode"].open())]
    assert sum(decoded) >= 6 * 8
    profile = OPTIONS["profile"]
    (tmp_path / "cluster.yaml").write_text(
        f"workers: [{{role: mixed, kv_tokens: 4096, profile: {profile}}}]"
    )
    simulated = subprocess.run(
        [harness.BIN, "sim", "--cluster", tmp_path / "cluster.yaml", "--trace", "fixed:100,10",
         "--rates", "5", "--requests", "20", "--step-times", steps["decode"]],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert simulated.returncode == 0, simulated.stderr
