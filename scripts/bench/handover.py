"""Measures what the hand-over costs a client, and writes its part of docs/benchmarks.md. Takes about
half an hour; leave the machine alone meanwhile.

    scripts/bench_handover [--quick] [--only PART] [--pairs N] [--build DIR] [--output FILE]

Parts: wire, time over bytes against raw UCX; second, the second token of a stream against a mixed
worker's, and TTFT; arrivals, four streams while prompts arrive. A split cluster and a mixed one are
up at once and asked in turns. With --only the page has the new figures of that part beside what was
measured before of the others; --quick leaves the page alone. Needs the release preset
(scripts/build.sh) and two cores.
"""

import argparse
import asyncio
import gc
import json
import os
import pathlib
import subprocess
import sys
import time

from bench import cluster, gaps, handover_report, load, machine, page

ROOT = pathlib.Path(__file__).resolve().parents[2]
PART = "bench_handover"
PARTS = ("wire", "second", "arrivals")
MEASURED = ROOT / "build/bench_handover.json"  # of each part, the last time
VOCAB = 49_000
LENGTHS = (128, 512, 1500, 4000, 8000)
OUTPUT = 24
# Enough prompts of this length to touch a cache of the default size once: its memory comes with
# the first use, which is no part of a hand-over.
WARM_TOKENS, WARM_PROMPTS = 4000, 7
PAUSE_SECONDS = 0.25  # in which everything comes to rest

STREAMS, STREAM_PROMPT = 4, 128
ARRIVAL_TOKENS, ARRIVAL_OUTPUT, ARRIVAL_SECONDS = 1500, 16, 5.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--baton", type=pathlib.Path, help="another binary than the build's")
    parser.add_argument(
        "--pairs", type=int, default=30, help="of each prompt length; the wire takes 30 at least"
    )
    parser.add_argument("--stream-tokens", type=int, default=2400, help="of each of four streams")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of streams with and without arrivals"
    )
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it works")
    parser.add_argument("--only", choices=PARTS, help="just this part")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


# --- the wire ------------------------------------------------------------------------------------


def measure_wire(build: pathlib.Path, rounds: int, tokens: int) -> list[dict]:
    """Lines through the times of 16 to `tokens` tokens of SmolLM2-135M's layout."""
    found = []
    for transport in ("shm", "tcp"):
        print(f"wire: {transport}, {rounds} rounds", file=sys.stderr)
        command = [build / "bin/transfer_bench", "fit", transport, 30, 3, 64, tokens, rounds, 16]
        shown = subprocess.run(
            [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True
        )
        found += [
            {"transport": transport, "rounds": rounds} | fit for fit in gaps.read_fits(shown.stdout)
        ]
    return found


# --- the second token ----------------------------------------------------------------------------


class Pair:
    """A split cluster and a mixed one. Prefill, or nobody, computes on one core, decode or mixed on
    the other; routers and client are on prefill's, which is idle when tokens come."""

    def __init__(self, split: cluster.Cluster, mixed: cluster.Cluster):
        self.split, self.mixed = split, mixed
        self.cores = sorted(os.sched_getaffinity(0))[:2]

    def pin(self, turned: bool) -> None:
        front, other = reversed(self.cores) if turned else self.cores
        self.split.pin(front, prefill=front, decode=other)
        self.mixed.pin(front, mixed=other)
        os.sched_setaffinity(0, {front})

    def both(self, turned: bool) -> list[cluster.Cluster]:
        return [self.mixed, self.split] if turned else [self.split, self.mixed]


def ask(where: cluster.Cluster, prompt: list[int], tokens: int) -> load.Request:
    request = asyncio.run(load.stream_one(where.port, load.body_of(where.model, prompt, tokens)))
    time.sleep(PAUSE_SECONDS)
    return request


def warm_up(pair: Pair, count: int) -> None:
    print("warming up", file=sys.stderr)
    for prompt in load.make_prompts(count, WARM_TOKENS, VOCAB, seed=1):
        for where in pair.both(False):
            ask(where, prompt, 4)


def measure_second(pair: Pair, tokens: int, count: int) -> dict:
    """`count` prompts of so many tokens, each to both clusters, in changing order; the cores change
    places, too, so that neither cluster has the better one."""
    before = {where.name: where.metrics() for where in pair.both(False)}
    rows = []
    # More than wanted: an answer whose second token has no text of its own tells nothing.
    for number, prompt in enumerate(load.make_prompts(2 * count, tokens, VOCAB, seed=tokens)):
        if len(rows) == count:
            break
        pair.pin(turned=number % 2 == 1)
        row = {}
        for where in pair.both(number % 4 > 1):
            request = ask(where, prompt, OUTPUT)
            if seen := gaps.second_gap(request):
                row[where.name] = {"ttft": request.ttft, "second": seen[0], "step": seen[1]}
        if len(row) == 2:
            rows.append(row)
    print(f"second: {tokens} tokens, {len(rows)} pairs", file=sys.stderr)
    after = {where.name: where.metrics() for where in pair.both(False)}
    return {
        "tokens": tokens,
        "rows": rows,
        "metrics": handoff_metrics(before["split"], after["split"]),
        "stages": {name: stages(before[name], after[name]) for name in before},
    }


def handoff_metrics(before: dict, after: dict) -> dict:
    """What the decode worker says of its hand-offs: means."""
    old, new = before["decode"], after["decode"]
    joined = cluster.growth(old, new, "baton_kv_handoffs_ended_total", 'end="joined"')
    per = {
        key: cluster.growth(old, new, f"baton_kv_{key}_total") / max(joined, 1)
        for key in ("read_bytes", "read_segments", "reads")
    }
    return per | {
        "joined": joined,
        "exposed": cluster.mean_between(old, new, "baton_kv_exposed_transfer_seconds"),
        "announce_to_read": cluster.mean_between(old, new, "baton_kv_announce_to_read_seconds"),
    }


def stages(before: dict, after: dict) -> dict[str, float]:
    """Mean seconds of each stage that the router tells of."""
    name = "baton_request_stage_seconds"
    old, new = before["router"], after["router"]
    labels = {key.split('stage="')[1].split('"')[0] for key in new if key.startswith(name + "_sum")}
    means = {label: cluster.mean_between(old, new, name, f'stage="{label}"') for label in labels}
    return {label: mean for label, mean in sorted(means.items()) if mean is not None}


# --- arrivals ------------------------------------------------------------------------------------


async def stream_under(where: cluster.Cluster, tokens: int, arrivals: bool, seed: int) -> dict:
    """Four streams, alone or while prompts arrive until the first of the four has ended."""
    prompts = load.make_prompts(STREAMS, STREAM_PROMPT, VOCAB, seed)
    streams = [
        asyncio.create_task(load.stream_one(where.port, load.body_of(where.model, prompt, tokens)))
        for prompt in prompts
    ]
    guests: list[asyncio.Task] = []
    while arrivals:
        done, _ = await asyncio.wait(
            streams, timeout=ARRIVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if done:
            break
        [prompt] = load.make_prompts(1, ARRIVAL_TOKENS, VOCAB, seed + 1000 + len(guests))
        body = load.body_of(where.model, prompt, ARRIVAL_OUTPUT)
        guests.append(asyncio.create_task(load.stream_one(where.port, body)))
    requests = await asyncio.gather(*streams)
    begin = max(gaps.token_times(request).get(2, request.arrivals[1]) for request in requests)
    end = min(request.arrivals[-1] for request in requests)
    return {
        "gaps": gaps.gaps_between(requests, begin, end),
        "ttfts": [guest.ttft for guest in await asyncio.gather(*guests)],
    }


def measure_arrivals(pair: Pair, tokens: int, rounds: int) -> list[dict]:
    """With and without, in turns; gaps of all rounds together."""
    pair.pin(turned=False)
    found = {
        (where.name, arrivals): {"gaps": [], "ttfts": []}
        for where in pair.both(False)
        for arrivals in (False, True)
    }
    for number in range(rounds):
        for where in pair.both(number % 2 == 1):
            for arrivals in (False, True):
                how = "with arrivals" if arrivals else "alone"
                print(f"arrivals: round {number + 1}, {where.name}, {how}", file=sys.stderr)
                run = asyncio.run(stream_under(where, tokens, arrivals, seed=100 + number))
                for key, values in run.items():
                    found[where.name, arrivals][key] += values
                time.sleep(PAUSE_SECONDS)
    return [
        {"cluster": name} | {
            "arrivals" if arrivals else "alone": summary(found[name, arrivals])
            for arrivals in (False, True)
        }
        for name in ("split", "mixed")
    ]  # fmt: skip


def summary(run: dict) -> dict:
    return {
        "count": len(run["gaps"]),
        "p50": gaps.percentile(run["gaps"], 0.5),
        "p99": gaps.percentile(run["gaps"], 0.99),
        "worst": max(run["gaps"]),
        "arrived": len(run["ttfts"]),
        "ttft": gaps.percentile(run["ttfts"], 0.5) if run["ttfts"] else None,
    }


# --- all of it -----------------------------------------------------------------------------------


def get_model() -> pathlib.Path:
    shown = subprocess.run(
        [ROOT / "scripts/get_model.sh"], stdout=subprocess.PIPE, text=True, check=True
    )
    return pathlib.Path(shown.stdout.splitlines()[-1])


def measure_clusters(options: argparse.Namespace) -> dict[str, list]:
    found = {}
    baton = (options.baton or options.build / "bin/baton").resolve()
    model, logs = get_model(), ROOT / "build/bench_handover"
    with (
        cluster.Cluster("split", baton, model, ["prefill", "decode"], logs) as split,
        cluster.Cluster("mixed", baton, model, ["mixed"], logs) as mixed,
    ):
        pair = Pair(split, mixed)
        pair.pin(turned=False)
        warm_up(pair, 1 if options.quick else WARM_PROMPTS)
        if options.only in (None, "second"):
            lengths = LENGTHS[:3] if options.quick else LENGTHS
            found["second"] = [measure_second(pair, n, options.pairs) for n in lengths]
        if options.only in (None, "arrivals"):
            found["arrivals"] = measure_arrivals(pair, options.stream_tokens, options.rounds)
    return found


def main() -> int:
    options = arguments()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench_handover: two cores are needed, one for each worker")
    if options.quick:
        options.pairs, options.stream_tokens, options.rounds = 4, 900, 1
    gc.disable()  # the client's pauses are not the server's
    about = {
        "machine": machine.describe(ROOT),
        "command": " ".join(["scripts/bench_handover", *sys.argv[1:]]),
    }
    found = {}
    if options.only in (None, "wire"):
        rounds, tokens = (3, 512) if options.quick else (max(options.pairs, 30), 8192)
        found["wire"] = measure_wire(options.build, rounds, tokens)
    if options.only != "wire":
        found |= measure_clusters(options)
    parts = {name: about | {"figures": figures} for name, figures in found.items()}
    print(handover_report.markdown(parts))
    if not options.quick:
        write(parts, options.output)
    return 0


def write(parts: dict, output: pathlib.Path) -> None:
    """To the page, with the parts that were measured before."""
    before = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    parts = {name: (before | parts)[name] for name in PARTS if name in before | parts}
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps(parts, indent=1))
    text = output.read_text() if output.exists() else ""
    output.write_text(page.with_part(text, PART, handover_report.markdown(parts)))
