#!/usr/bin/env python3
"""Measures Baton on this CPU against llama.cpp with the same weights, as a server, and its hand-off
against raw UCX; writes docs/benchmarks.md, but for the part of scripts/bench_handover. Takes some
twenty minutes; leave the machine alone meanwhile.

    scripts/bench_cpu.py [--threads N] [--rounds N] [--only PART] [--build DIR] [--output FILE]

Needs the release preset (scripts/build.sh). llama.cpp comes with llama-cpp-python, which builds it
from its source into a virtual environment of its own the first time.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
VENV = ROOT / "build/bench-venv"
PACKAGES = ["llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy"]
sys.path.insert(0, str(ROOT / "scripts"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--only", choices=["engines", "served", "wire"], help="just this part")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


def enter_venv() -> None:
    """Runs this script again inside its virtual environment, made if it is not there."""
    if pathlib.Path(sys.prefix) == VENV:
        return
    python = VENV / "bin/python"
    made = VENV / ".made"
    if not made.exists():
        print(f"making {VENV}; llama.cpp builds for some minutes", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        made.touch()
    os.execv(python, [python, *sys.argv])


def main() -> None:
    options = arguments()
    enter_venv()
    from bench import engines, kernels, machine, page, report, served, weights, wire

    binaries = options.build.resolve() / "bin"
    model = weights.bf16_model(ROOT)
    results = {
        "machine": machine.describe(ROOT),
        "command": " ".join(["scripts/bench_cpu.py", *sys.argv[1:]]),
        "rounds": options.rounds,
        "engines": [],
        "kernels": [],
        "served": [],
        "wire": {},
    }
    parts = [options.only] if options.only else ["engines", "served", "wire"]
    if "engines" in parts:
        compared = engines.compare(binaries, model, options.threads, options.rounds)
        results["engines"], results["roofs"] = compared
        results["kernels"] = kernels.measure(binaries, options.threads)
    if "served" in parts:
        results["served"] = served.measure(binaries, model, options.threads)
    if "wire" in parts:
        results["wire"] = wire.measure(ROOT, options.build, 3 * options.rounds)
    (ROOT / "build/bench_cpu.json").write_text(json.dumps(results, indent=1))
    before = options.output.read_text() if options.output.exists() else ""
    options.output.write_text(page.with_parts_of(before, report.markdown(results)))
    print(options.output.read_text())


if __name__ == "__main__":
    main()
