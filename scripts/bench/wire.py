"""The hand-off against raw UCX gets of the same segments: what scripts/bench_transfer prints."""

import os
import pathlib
import subprocess
import sys


def measure(root: pathlib.Path, build: pathlib.Path, rounds: int) -> dict:
    print(f"wire: {rounds} rounds", file=sys.stderr)
    shown = subprocess.run(
        [root / "scripts/bench_transfer", str(rounds)],
        env=os.environ | {"BUILD": str(build.resolve())},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {"rounds": rounds, "text": shown.stdout.rstrip()}
