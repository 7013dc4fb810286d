"""The pure parts of scripts/bench_papers: lengths, plans, searches and the page."""

import math
import pathlib
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from bench import lengths, paper_page, paper_plans, paper_runs, papers  # noqa: E402


@pytest.mark.parametrize("w", paper_plans.WORKLOADS, ids=lambda w: w.key)
def test_lengths_have_the_means_and_fit(w):
    pairs = lengths.drawn(w.means, 500)
    assert lengths.mean_of(pairs, 0) == pytest.approx(w.means.prompt, rel=0.02)
    assert lengths.mean_of(pairs, 1) == pytest.approx(w.means.answer, rel=0.02)
    assert all(p >= 1 and a >= 1 and p + a < lengths.POSITIONS for p, a in pairs)
    assert lengths.drawn(w.means, 500) == pairs


def test_ceilings_are_what_memory_and_step_times_allow():
    w = paper_plans.WORKLOADS[0]
    prefill, decode = paper_plans.ceilings(w, [(1000, 1)])
    assert prefill == pytest.approx(1e3 / (62.343 + 2.2269) / 3)
    # 66,281 tokens of KV, of sequences of 1000.5 tokens: 66.2 at once.
    step = 19.935 + 6.2694e-4 * 66_281 + 0.038507 * 66.2
    assert decode == pytest.approx(66.2 / step * 1e3 / 3, rel=1e-3)


def test_more_memory_is_for_kv():
    w = paper_plans.WORKLOADS[1]
    plan = paper_plans.split(w)
    more = paper_plans.with_memory(w, plan, 0.95)
    per_token = w.model.kv_bytes_per_token()
    for few, many, gpus, workers in zip(plan.workers, more.workers, (4, 4), (1, 2)):
        extra = (many["kv_tokens"] - few["kv_tokens"]) * workers * per_token
        assert extra == pytest.approx(0.05 * gpus * 80e9, rel=1e-3)
    assert paper_plans.with_memory(w, plan, 0.9) == plan


def test_a_crossing_is_between_two_rates():
    assert paper_runs.crossing([(1, 1.0), (2, 0.92), (4, 0.88), (8, 0.1)]) == pytest.approx(3)
    assert paper_runs.crossing([(1, 0.8), (2, 0.5)]) is None
    assert paper_runs.crossing([(1, 1.0), (2, 0.95)]) is None


def test_intervals_are_student_s():
    assert paper_runs.half_width([1, 2, 3]) == pytest.approx(4.303 / math.sqrt(3))
    assert paper_runs.half_width([5]) == 0


def test_plans_have_the_paper_s_gpus():
    gpus = {w.key: (paper_plans.split(w).gpus(), paper_plans.baseline(w).gpus())
            for w in paper_plans.WORKLOADS}  # fmt: skip
    assert gpus["13b-sharegpt"] == (3, 1)
    assert set(gpus.values()) == {(3, 1), (8, 4)}
    for w in paper_plans.WORKLOADS:
        assert [w.split_gpus()] == [paper_plans.split(w).gpus()]
        decode = paper_plans.split(w).workers[1]
        assert decode["kv_tokens"] > 16 * lengths.POSITIONS


class NoRuns:
    """Knows everything."""

    requests, quick, seeds = 100, 50, range(1, 3)

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()

    def goodput(self, w, name, plan, kind, trace=None):
        assert plan.gpus() > 0
        values = [2.0, 2.2] if name.startswith("split") else [1.0, 1.0]
        quick = kind in (paper_runs.Kind.QUICK, paper_runs.Kind.MORE)
        return paper_runs.Found(values[:1] if quick else values, 0.9, 0.95, 1.0)


class AtOnce:
    """A pool that does what it is given at once."""

    class Done:
        def __init__(self, value):
            self.value = value

        def result(self):
            return self.value

    def submit(self, function, *args):
        return self.Done(function(*args))


def test_the_page_has_every_workload_and_plan():
    runs, results = NoRuns(), []
    for w in paper_plans.WORKLOADS:
        found = {line.name: AtOnce().submit(papers.measure, runs, w, line)
                 for line in papers.first(runs, w, None)}  # fmt: skip
        papers.second(AtOnce(), runs, w, found)
        results.append((w, {name: f.result() for name, f in found.items()}))
    page = paper_page.page(results, runs, "abc")
    assert page.count("| OPT-13B, ShareGPT |") >= 6
    assert "2.1 ± 1.3 | 1 ± 0 | 2.10 ± 1.3 | **-54 %** |" in page  # of 4.6
    assert "steps x 0.8" in page and "lengths:756,200" in page


class NoTime(NoRuns):
    def goodput(self, *args):
        return None


def test_what_was_not_measured_is_a_dash():
    runs, w = NoTime(), paper_plans.WORKLOADS[0]
    lines = papers.first(runs, w, None)
    found = {line.name: AtOnce().submit(papers.measure, runs, w, line) for line in lines}
    papers.second(AtOnce(), runs, w, found)
    results = [(w, {name: f.result() for name, f in found.items()})]
    assert "| OPT-13B, ShareGPT | - | - | - | - | - | - |" in paper_page.page(results, runs, "abc")
