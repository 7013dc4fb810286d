"""Workers whose role follows the traffic: real processes, and tokens that can be checked."""

import concurrent.futures
import shutil
import time

import api
import harness
import hash_model
import pytest
import requests
import up

VOCAB, EOS = 512, (2,)  # of tiny_model
# A device so slow that the tests' own processes are not what takes the time.
PROFILE = """\
name: slow
source: made up
kv_bytes_per_token: 131072
step:
  fixed_us: 10000
  row_us: 300
  row_beyond_us: 300
  ridge_rows: 1
  context_token_us: 0
  attended_pair_us: 0
  output_us: 0
link:
  latency_us: 20
  byte_us: 2.22e-5
"""


@pytest.fixture(scope="module")
def no_weights(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("no-weights") / "tiny"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture
def slow(no_weights, tmp_path):
    profile = tmp_path / "slow.yaml"
    profile.write_text(PROFILE)
    return {
        "model": no_weights,
        "device": "emulated",
        "profile": profile,
        "kv_gib": 1,
        "chunk_tokens": 128,
        "max_sequences": 8,
    }


def roles(cluster) -> dict[str, int]:
    metrics = cluster.metrics()
    return {
        role: int(metrics.sum("baton_router_workers", role=role, state="ready"))
        for role in ("prefill", "decode", "mixed")
    }


def ask(cluster, number: int, prompt_tokens: int, max_tokens: int):
    prompt = [3 + (i * 7 + number * 31) % 400 for i in range(prompt_tokens)]
    answer = api.complete(cluster, prompt=prompt, max_tokens=max_tokens, seed=number)
    tokens = hash_model.output(prompt, max_tokens, VOCAB, EOS, number, 0)
    spoken = [token for token in tokens if token > max(EOS)]  # answers leave out special ones
    text = requests.post(
        cluster.url + "/detokenize", json={"model": cluster.model_name, "tokens": spoken}
    ).json()["prompt"]
    assert answer["choices"][0]["text"] == text, number


class Load:
    """Clients that ask one question after another; each answer is checked."""

    def __init__(self, cluster, clients: int, prompt_tokens: int, max_tokens: int):
        self.stopped = False
        self.asked = 0
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)

        def go_on(client: int):
            while not self.stopped:
                self.asked += 1
                ask(cluster, client * 100_000 + self.asked, prompt_tokens, max_tokens)

        self.clients = [self.pool.submit(go_on, client) for client in range(clients)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped = True
        for client in self.clients:
            client.result()
        self.pool.shutdown()


@pytest.mark.slow
def test_roles_follow_the_traffic_and_back_and_no_request_is_lost(start_cluster, slow):
    cluster = start_cluster(auto=4, **slow)

    def becomes(role: str):
        begun = time.monotonic()
        harness.wait_for(lambda: roles(cluster)[role] == 3, 60, f"three {role} workers")
        return time.monotonic() - begun

    with Load(cluster, clients=12, prompt_tokens=600, max_tokens=4):
        becomes("prefill")
    with Load(cluster, clients=24, prompt_tokens=5, max_tokens=60) as load:
        becomes("decode")
        assert load.asked > 24
    with Load(cluster, clients=12, prompt_tokens=600, max_tokens=4):
        becomes("prefill")
    assert roles(cluster)["mixed"] == 0
    metrics = cluster.metrics()
    assert metrics.sum("baton_role_flips_total", to="decode") >= 3
    assert metrics.sum("baton_role_leader") == 1
    assert metrics.sum("baton_desired_workers", role="prefill") >= 1
    assert metrics.sum("baton_router_retries_total") == 0
    names = list(cluster.workers)
    harness.wait_for(
        lambda: all(
            cluster.metrics(name).sum("baton_kv_blocks", state=state) == 0
            for name in names
            for state in ("active", "quarantined")
        ),
        10,
        "all blocks come free",
    )


def test_of_two_routers_one_leads_and_the_other_after_it(start_cluster, slow, tmp_path):
    cluster = start_cluster(auto=2, **slow)
    addresses = [f"127.0.0.1:{w.process.ports['rpc']}" for w in cluster.workers.values()]
    options = {"model": slow["model"], "listen": "127.0.0.1:0", "workers": addresses}
    other = harness.Process("router-2", "router", options, tmp_path, {})
    other.wait_ready()

    def leads(port: int) -> float:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        return harness.Metrics(text).sum("baton_role_leader")

    try:
        ports = [cluster.port, other.ports["http"]]
        harness.wait_for(lambda: sum(map(leads, ports)) == 1, 10, "one leads")
        harness.wait_for(
            lambda: roles(cluster) == {"prefill": 1, "decode": 1, "mixed": 0}, 20, "a pair"
        )
        ask(cluster, 1, 300, 10)
    finally:
        other.stop()
    harness.wait_for(lambda: leads(cluster.port) == 1, 10, "who is left leads")


def test_who_is_left_serves_alone(start_cluster, slow):
    cluster = start_cluster(auto=2, **slow)
    harness.wait_for(lambda: roles(cluster)["mixed"] == 0, 20, "a pair")
    cluster.kill_worker("auto-0")
    ask(cluster, 2, 600, 10)  # longer than what a decode worker computes by itself
    harness.wait_for(lambda: roles(cluster)["mixed"] == 1, 20, "a mixed worker")
    cluster.start_worker("auto-0").wait_ready()
    harness.wait_for(lambda: roles(cluster)["mixed"] == 0, 20, "a pair again")
    ask(cluster, 3, 400, 10)


def test_fixed_pools_and_a_router_that_is_told_so_move_nothing(start_cluster, slow):
    cluster = start_cluster(auto=2, router_options={"move_roles": False}, **slow)
    ask(cluster, 4, 100, 5)
    time.sleep(4)
    assert roles(cluster) == {"prefill": 0, "decode": 0, "mixed": 2}
    assert not cluster.metrics().has("baton_desired_workers")


def test_up_starts_them(no_weights, slow, baton_is_built):
    flags = ["--device", "emulated", "--profile", slow["profile"], "--threads-per-worker", "1"]
    started = up.Up(no_weights, "--auto", "2", *flags, "--once", "Hello", "--ask-tokens", "4")
    code, _, said = started.end()
    assert code == 0, said
    assert "1 router + 2 auto" in said
