"""Every process is replaced in turn under load, and no client notices."""

import itertools
import random
import signal
import threading

import balancer
import harness
import hash_model
import pytest
import requests
import sse

VOCAB, EOS = 512, (2,)  # of tiny_model
CLIENTS = 8
WORKERS = {
    "device": "emulated",
    "profile": harness.ROOT / "deploy/profiles/h200-llama3-8b.yaml",
    "kv_gib": 1,
    "drain_seconds": 20,
}
# Longer than the balancer needs to notice: two checks, half a second apart.
DELAY = {"shutdown_delay_seconds": 3, "drain_seconds": 20}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180 * harness.PATIENCE),
    pytest.mark.skipif(
        balancer.PROGRAM is None, reason="haproxy is not installed (Debian's package haproxy)"
    ),
]


class Client(threading.Thread):
    """Asks again and again over one connection; half of its answers are streams."""

    def __init__(self, url: str, model: str, number: int, stopped: threading.Event):
        super().__init__(daemon=True)
        self._url, self._model, self._number, self._stopped = url, model, number, stopped
        self.answered = 0
        self.wrong: list[str] = []
        self.start()

    def run(self):
        draw = random.Random(self._number)
        with requests.Session() as session:
            for turn in itertools.count():
                if self._stopped.is_set():
                    return
                try:
                    self._ask(session, draw, turn)
                except Exception as failure:  # reported by the main thread
                    self.wrong.append(repr(failure))
                self.answered += 1

    def _ask(self, session, draw: random.Random, turn: int):
        prompt = [draw.randrange(3, 300) for _ in range(draw.randrange(20, 200))]
        tokens, streams = draw.randrange(5, 80), turn % 2 == 0
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "seed": turn,
            "stream": streams,
        }
        answer = session.post(
            self._url + "/v1/completions", json=body, timeout=60 * harness.PATIENCE
        )
        assert answer.status_code == 200, answer.text
        if streams:
            text = sse.text_of(sse.events_of([answer.content]))
        else:
            text = answer.json()["choices"][0]["text"]
        wanted = hash_model.output(prompt, tokens, VOCAB, EOS, turn)
        shown = session.post(
            self._url + "/detokenize", json={"model": self._model, "tokens": wanted}, timeout=20
        )
        assert shown.status_code == 200, shown.text
        expected = shown.json()["prompt"].replace("<|endoftext|>", "").replace("<|im_start|>", "")
        assert text == expected, f"seed {turn}"


class Site:
    """Two routers behind a balancer, two workers of each kind."""

    def __init__(self, cluster: harness.Cluster, folder):
        self.cluster, self._folder = cluster, folder
        addresses = [f"{w.host}:{w.process.ports['rpc']}" for w in cluster.workers.values()]
        self._options = {
            "model": cluster.model,
            "workers": addresses,
            **harness.TAKING_TURNS,
            **DELAY,
        }
        self.routers = [self._start_router(f"router-{i}", 0) for i in range(2)]
        for router in self.routers:
            self._wait_ready(router)
        self.balancer = balancer.Balancer(folder, self.routers, cluster.model_name)

    def _start_router(self, name: str, port: int) -> harness.Process:
        options = self._options | {"listen": f"127.0.0.1:{port}"}
        router = harness.Process(name, "router", options, self._folder)
        router.wait_ready()
        return router

    @staticmethod
    def _wait_ready(router: harness.Process):
        url = f"http://127.0.0.1:{router.ports['http']}/ready"
        harness.wait_for(
            lambda: requests.get(url, timeout=5).status_code == 200, 20, f"{router.name} is ready"
        )

    def replace_router(self, i: int):
        old = self.routers[i]
        harness.wait_for(lambda: self.balancer.sees(old) == "UP", 10, f"{old.name} is up")
        old.popen.send_signal(signal.SIGTERM)
        harness.wait_for(lambda: self.balancer.sees(old) == "DOWN", 10, f"{old.name} is down")
        assert harness.is_listening(old.ports["http"]), "it refused before the balancer knew"
        assert old.popen.wait(40 * harness.PATIENCE) == 0
        self.routers[i] = new = self._start_router(old.name, old.ports["http"])
        self._wait_ready(new)
        harness.wait_for(lambda: self.balancer.sees(new) == "UP", 10, f"{new.name} is up again")

    def replace_worker(self, name: str):
        worker = self.cluster.workers[name]
        worker.process.popen.send_signal(signal.SIGTERM)
        assert worker.process.popen.wait(40 * harness.PATIENCE) == 0
        self.cluster.start_worker(name).wait_ready()
        harness.wait_for(self._all_are_ready, 20, f"both routers have {name} again")

    def _all_are_ready(self) -> bool:
        def ready(router: harness.Process) -> float:
            text = requests.get(f"http://127.0.0.1:{router.ports['http']}/metrics", timeout=5).text
            return harness.Metrics(text).sum("baton_router_workers", state="ready")

        return all(ready(router) == len(self.cluster.workers) for router in self.routers)

    def stop(self):
        self.balancer.stop()
        assert [router.stop(40) for router in self.routers] == [0, 0]


@pytest.fixture
def site(start_cluster, tiny, tmp_path):
    cluster = start_cluster(tiny, prefill=2, decode=2, **WORKERS)
    site = Site(cluster, tmp_path)
    yield site
    site.stop()


def test_no_request_fails_while_every_process_is_replaced(site):
    stopped = threading.Event()
    url, model = site.balancer.url, site.balancer.model_name
    clients = [Client(url, model, i, stopped) for i in range(CLIENTS)]
    steps = [lambda name=name: site.replace_worker(name) for name in site.cluster.workers]
    steps += [lambda i=i: site.replace_router(i) for i in range(2)]
    answered = []
    try:
        for step in steps:
            before = sum(client.answered for client in clients)
            step()
            answered.append(sum(client.answered for client in clients) - before)
    finally:
        stopped.set()
        for client in clients:
            client.join(60 * harness.PATIENCE)
    print("answers during each step:", answered)
    assert [wrong for client in clients for wrong in client.wrong] == []
    assert all(count > 0 for count in answered), answered
