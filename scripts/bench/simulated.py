"""Whether the simulator is right: the same requests to real processes and to `baton sim`.

The workers are emulated (docs/emulated.md), so that what a step takes is the same on both sides;
all else is real on one of them. Their device is the profile's, slowed down so that a few dozen
requests a second are an overload: clients and processes then take little of the machine.
"""

import argparse
import asyncio
import json
import math
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

from bench import gaps, load, served

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILE = ROOT / "deploy/profiles/h200-llama3-8b.yaml"
SLOWER = 8.75
KV_TOKENS, BLOCK, SEQUENCES, CONTEXT = 199_872, 64, 64, 2048
SLO = {"ttft": 0.4, "tpot": 0.06}
SETUPS = {
    "4 prefill + 4 decode": ({"prefill": 4, "decode": 4, "mixed": 0}, 2048),
    "8 mixed": ({"prefill": 0, "decode": 0, "mixed": 8}, 512),
}
RATES = {"4 prefill + 4 decode": (10, 20, 35, 45), "8 mixed": (10, 25, 45, 60)}
WITHIN = {"met": 0.02, "ttft_p50": 0.05, "ttft_p90": 0.05, "tpot_p50": 0.05, "tpot_p90": 0.05}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="for its tokenizer")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--requests", type=int, default=400, help="of each rate")
    parser.add_argument("--policy", default="goodput")
    parser.add_argument("--no-admission", action="store_true")
    parser.add_argument("--only", choices=SETUPS, help="one of the clusters")
    args = parser.parse_args()
    print("| cluster | requests/s | figure | real | simulated | |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        setups = [args.only] if args.only else SETUPS
        return max([check(args, setup, pathlib.Path(folder)) for setup in setups])


def check(args, setup: str, folder: pathlib.Path) -> int:
    """1 if anything was further off than it may be."""
    write_inputs(setup, folder)
    how = ["--policy", args.policy, f"--admission={str(not args.no_admission).lower()}"]
    failed = 0
    for rate in RATES[setup]:
        requests = draw(rate, args.requests)
        write_trace(requests, folder / "trace.csv")
        # A new cluster each time: routers and workers learn.
        with served.Server(args.bin, args.model, [*up_flags(setup, folder), *how]) as server:
            time.sleep(2)  # they pair
            real = summary(requests, asyncio.run(play(server, requests)))
        simulated = simulate(args.bin, how, folder)
        for figure, allowed in WITHIN.items():
            failed |= tell(setup, rate, figure, real[figure], simulated[figure], allowed)
    return failed


def tell(setup: str, rate: float, figure: str, real: float, simulated: float, allowed: float):
    off = simulated - real if figure == "met" else simulated / real - 1
    unit, shown = (100, "{:.1f} %") if figure == "met" else (1000, "{:.1f} ms")
    print(
        f"| {setup} | {rate} | {figure} | {shown.format(unit * real)} "
        f"| {shown.format(unit * simulated)} | {100 * off:+.1f} % |",
        flush=True,
    )
    return int(abs(off) > allowed)


# --- what both are given --------------------------------------------------------------------------


def draw(rate: float, count: int) -> list[tuple[float, int, int]]:
    """Arrival, prompt and output tokens of each: Poisson, and lengths that differ a lot."""
    source = random.Random(f"{rate} {count}")
    at, requests = 0.0, []
    for _ in range(count):
        at += source.expovariate(rate)
        prompt = round(500 * math.exp(source.gauss(-0.18, 0.6)))
        output = round(60 * math.exp(source.gauss(-0.18, 0.6)))
        requests.append((at, min(max(prompt, 1), 1500), min(max(output, 2), 300)))
    return requests


def write_inputs(setup: str, folder: pathlib.Path):
    head, step, link = re.fullmatch(
        r"(.*^step:)(.*)(^link:.*)", PROFILE.read_text(), re.M | re.S
    ).groups()
    slower = re.sub(r"(_us: )(\S+)", lambda cost: f"{cost[1]}{float(cost[2]) * SLOWER:.6g}", step)
    (folder / "profile.yaml").write_text(head + slower + link)
    roles, chunk = SETUPS[setup]
    group = {
        "profile": "profile.yaml", "kv_tokens": KV_TOKENS, "block_tokens": BLOCK,
        "chunk_tokens": chunk, "max_sequences": SEQUENCES, "max_context": CONTEXT,
        "nic_gbit": 1e6,  # what emulated workers read is small
    }  # fmt: skip
    workers = [group | {"role": role, "count": n} for role, n in roles.items() if n > 0]
    (folder / "cluster.yaml").write_text(json.dumps({"workers": workers}))  # which is YAML, too


def up_flags(setup: str, folder: pathlib.Path) -> list:
    roles, chunk = SETUPS[setup]
    token_bytes = int(re.search(r"^kv_bytes_per_token: (\d+)", PROFILE.read_text(), re.M)[1])
    flags = ["--device", "emulated", "--profile", folder / "profile.yaml"]
    flags += [
        "--kv-gib",
        token_bytes * (KV_TOKENS + 1) / 2**30,
        "--block-tokens",
        BLOCK,
        "--chunk-tokens",
        chunk,
    ]
    flags += ["--max-sequences", SEQUENCES, "--max-context", CONTEXT]
    flags += ["--slo-class", f"default: ttft={SLO['ttft']}s, tpot={SLO['tpot'] * 1000:g}ms"]
    for role, count in roles.items():
        flags += [f"--{role}", count]
    return flags


def write_trace(requests: list[tuple[float, int, int]], path: pathlib.Path):
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for at, prompt, output in requests:
        minutes, seconds = divmod(at, 60)
        lines.append(f"2024-01-01 00:{int(minutes):02d}:{seconds:010.7f},{prompt},{output}")
    path.write_text("\n".join(lines))


# --- the two ------------------------------------------------------------------------------------


async def play(server: served.Server, requests: list[tuple[float, int, int]]):
    """What became of each, by the client's clock; None: it was refused, or failed."""
    begun = time.perf_counter() + 0.5

    async def one(index: int, at: float, prompt: int, output: int):
        tokens = load.make_prompts(1, prompt, served.VOCAB, hash((begun, index)))[0]
        await asyncio.sleep(begun + at - time.perf_counter())
        try:
            answer = await load.stream_one(server.port, load.body_of(server.model, tokens, output))
        except (OSError, RuntimeError):
            return None
        return answer.arrivals[0] - begun - at, answer.tpot

    return await asyncio.gather(*(one(i, *request) for i, request in enumerate(requests)))


def summary(requests: list, outcomes: list[tuple[float, float] | None]) -> dict[str, float]:
    answered = [outcome for outcome in outcomes if outcome is not None]
    met = sum(ttft <= SLO["ttft"] and tpot <= SLO["tpot"] for ttft, tpot in answered)
    ttfts, tpots = zip(*answered)
    return {
        "met": met / len(requests),
        "ttft_p50": gaps.percentile(list(ttfts), 0.5),
        "ttft_p90": gaps.percentile(list(ttfts), 0.9),
        "tpot_p50": gaps.percentile(list(tpots), 0.5),
        "tpot_p90": gaps.percentile(list(tpots), 0.9),
    }


def simulate(binaries: pathlib.Path, how: list[str], folder: pathlib.Path) -> dict[str, float]:
    command = [
        binaries / "baton", "sim", "--cluster", folder / "cluster.yaml", "--trace",
        folder / "trace.csv", "--slo", f"ttft={SLO['ttft']},tpot={SLO['tpot']}",
        "--json", folder / "result.json", "--known-lengths", *how,
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)
    run = json.loads((folder / "result.json").read_text())["points"][0]["runs"][0]
    return {
        "met": run["joint_met"],
        "ttft_p50": run["ttft_s"]["p50"],
        "ttft_p90": run["ttft_s"]["p90"],
        "tpot_p50": run["tpot_s"]["p50"],
        "tpot_p90": run["tpot_s"]["p90"],
    }
