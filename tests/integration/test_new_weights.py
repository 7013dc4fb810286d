"""New weights come under load: no request fails, and each answer is of one version, whole."""

import collections
import signal

import harness
import pytest
import requests
import tiny_model
from clients import Clients, complete

CLIENTS = 6
# Long enough that a prompt's KV crosses in blocks, and that answers are under way at each step.
PROMPTS = [[3 + (17 * i + j * j) % 290 for j in range(20 + 13 * i)] for i in range(12)]
OPTIONS = {"model": "tiny", "max_tokens": 40, "temperature": 0, "ignore_eos": True}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180 * harness.PATIENCE)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Two of one name and tokenizer."""
    folder = tmp_path_factory.mktemp("versions")
    shapes = {"old": tiny_model.Shape(), "new": tiny_model.Shape(seed=2)}
    return {
        name: tiny_model.write_tiny_model(folder / name / "tiny", shape)
        for name, shape in shapes.items()
    }


class Asker:
    """Asks what both versions answer differently, and counts whose the answers are."""

    def __init__(self, url: str, answers: dict[str, list[str]]):
        self._url, self._answers = url, answers
        self.counts: collections.Counter[str] = collections.Counter()

    def __call__(self, session, draw, turn: int):
        i = draw.randrange(len(PROMPTS))
        text = complete(session, self._url, prompt=PROMPTS[i], stream=turn % 2 == 0, **OPTIONS)
        whose = [version for version, texts in self._answers.items() if texts[i] == text]
        assert whose, f"of neither version: {text!r}"
        self.counts[whose[0]] += 1

    def take(self) -> set[str]:
        seen, self.counts = set(self.counts), collections.Counter()
        return seen


def answers_of(cluster) -> list[str]:
    with requests.Session() as session:
        return [complete(session, cluster.url, prompt=p, **OPTIONS) for p in PROMPTS]


def replace(cluster, name: str, model):
    worker = cluster.workers[name]
    worker.process.popen.send_signal(signal.SIGTERM)
    assert worker.process.popen.wait(40 * harness.PATIENCE) == 0
    worker.options["model"] = model
    cluster.start_worker(name).wait_ready()
    harness.wait_for(
        lambda: cluster.metrics().sum("baton_router_workers", state="ready") == 4,
        20,
        f"the router has {name} again",
    )


def test_no_answer_is_of_two_versions(start_cluster, versions):
    answers = {
        name: answers_of(start_cluster(model, mixed=1)) for name, model in versions.items()
    }
    assert all(old != new for old, new in zip(answers["old"], answers["new"]))
    cluster = start_cluster(
        versions["old"], harness.TAKING_TURNS, prefill=2, decode=2, drain_seconds=20
    )
    ask = Asker(cluster.url, answers)
    seen = []
    with Clients(ask, CLIENTS) as clients:
        clients.wait_more(2 * CLIENTS)
        seen.append(ask.take())
        for name in ["prefill-1", "decode-1", "prefill-0", "decode-0"]:
            replace(cluster, name, versions["new"])
            clients.wait_for_each(1)
            ask.take()  # what was under way may be of those that are gone
            clients.wait_more(2 * CLIENTS)
            seen.append(ask.take())
    # Half of a new version serves nobody; beside a whole old one, a whole new one may.
    assert [seen[0], seen[1], seen[3], seen[4]] == [{"old"}, {"old"}, {"new"}, {"new"}], seen
    assert "new" in seen[2], "a whole new version serves"
