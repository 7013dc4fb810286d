"""Baton's engine and llama.cpp in turns, so that what else the machine does hits both alike."""

import json
import pathlib
import statistics
import subprocess
import sys

# What is compared, how it is taken from a measurement, and the ratio that is the target.
FIGURES = {
    "prefill of 512 tokens": (lambda found: found["prefill_tok_s"], 1.8),
    "decode, 1 sequence": (lambda found: found["decode_tok_s"]["1"], 0.95),
    "decode, 16 sequences": (lambda found: found["decode_tok_s"]["16"], 3.0),
}
# Tokens/s that this machine allows, by its arithmetic and by the bytes that a token reads at least.
ROOFS = {
    "prefill of 512 tokens": lambda found: flops(found) / found["prefill_flop_per_token"],
    "decode, 1 sequence": lambda found: decode_roof(found, "1"),
    "decode, 16 sequences": lambda found: decode_roof(found, "16"),
}


def flops(found: dict) -> float:
    return found["roof_gflop_s"] * 1e9


def decode_roof(found: dict, batch: str) -> float:
    by_memory = found["roof_gb_s"] * 1e9 / found["decode_bytes_per_token"][batch]
    return min(by_memory, flops(found) / found["decode_flop_per_token"][batch])


def compare(
    binaries: pathlib.Path, model: pathlib.Path, threads: int, rounds: int
) -> tuple[list[dict], dict]:
    """The figures, and the roofs of arithmetic and memory."""
    ours_command = [
        binaries / "engine_bench", "--model", model, "--threads", str(threads),
        "--prefill", "512", "--decode-batch", "1,16", "--context", "512", "--runs", "1",
    ]  # fmt: skip
    their_command = [sys.executable, "-m", "bench.llama", model, str(threads)]
    ours, theirs = [], []
    for number in range(rounds):
        print(f"engines: round {number + 1} of {rounds}", file=sys.stderr)
        ours.append(run(ours_command))
        theirs.append(run(their_command))
    figures = [
        {
            "what": what,
            "threads": threads,
            "baton": spread([take(found) for found in ours]),
            "llama.cpp": spread([take(found) for found in theirs]),
            "ratio": spread([take(a) / take(b) for a, b in zip(ours, theirs)]),
            "roof": spread([ROOFS[what](found) for found in ours]),
            "target": target,
        }
        for what, (take, target) in FIGURES.items()
    ]
    roofs = {
        key: statistics.median(found[key] for found in ours)
        for key in ("roof_gflop_s", "roof_gb_s")
    }
    roofs["arithmetic"] = ours[0]["arithmetic"]
    return figures, roofs


def run(command: list) -> dict:
    scripts = pathlib.Path(__file__).resolve().parents[1]  # where `-m bench.llama` is found
    shown = subprocess.run(
        [str(part) for part in command], cwd=scripts, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(shown.stdout.splitlines()[-1])


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
