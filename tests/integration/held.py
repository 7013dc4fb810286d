"""What a cluster holds: blocks, sequences, descriptors, threads."""

import collections
import re
import time

import harness

BLOCK_STATES = ["free", "active", "cached", "quarantined"]


def requests(cluster) -> dict[str, float]:
    """What workers hold for requests; nothing when none is there."""
    found = {}
    for name in cluster.workers:
        metrics = cluster.metrics(name)
        assert metrics.has("baton_kv_blocks"), metrics.text
        for state in ["active", "quarantined"]:
            found[f"{name} {state}"] = metrics.sum("baton_kv_blocks", state=state)
        found[f"{name} running"] = metrics.sum("vllm:num_requests_running")
        found[f"{name} waiting"] = metrics.sum("vllm:num_requests_waiting")
    return {what: value for what, value in found.items() if value != 0}


def handles(cluster) -> dict[str, tuple[int, int, int]]:
    return {p.name: (p.descriptors(), p.sockets(), p.threads()) for p in cluster.processes()}


def settled_handles(cluster) -> dict[str, tuple[int, int, int]]:
    """Once the connections of the last scrape are gone, and nothing more changes."""
    samples = []

    def is_settled() -> bool:
        samples.append(handles(cluster))
        time.sleep(0.2)
        return len(samples) >= 4 and all(sample == samples[-1] for sample in samples[-4:])

    harness.wait_for(is_settled, 20, lambda: f"handles stay as they are: {samples[-4:]}")
    return samples[-1]


def blocks(cluster) -> dict[str, float]:
    """Of each worker, in whatever state."""
    scrapes = {name: cluster.metrics(name) for name in cluster.workers}
    return {
        name: sum(scrape.sum("baton_kv_blocks", state=state) for state in BLOCK_STATES)
        for name, scrape in scrapes.items()
    }


def stages(cluster) -> collections.Counter[str]:
    """Where requests were when their clients had gone, as the router's log has it."""
    return collections.Counter(re.findall(r" stage=(\w+)", cluster.router.log.read_text()))
