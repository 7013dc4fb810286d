"""What clients of a whole cluster see: 512 tokens in, 64 out, at several concurrencies."""

import asyncio
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import urllib.request

from bench import gaps, load

INPUT, OUTPUT = 512, 64
CONCURRENCIES = (1, 8, 16)
VOCAB = 49_000


def measure(binaries: pathlib.Path, model: pathlib.Path, threads: int) -> list[dict]:
    setups = {
        f"1 mixed worker on {threads} threads": ["--mixed", "1", "--threads-per-worker", threads],
        "1 prefill + 1 decode worker, 1 thread each": [
            "--prefill", "1", "--decode", "1", "--threads-per-worker", 1,
        ],
    }  # fmt: skip
    found = []
    for name, flags in setups.items():
        with Server(binaries, model, flags) as server:
            # Memory is touched and pairs have met before anything counts.
            run(server, count=2, at_once=2, seed=1)
            for at_once in CONCURRENCIES:
                print(f"served: {name}, {at_once} at once", file=sys.stderr)
                requests, seconds = run(server, max(10, 4 * at_once), at_once, seed=at_once + 100)
                found.append({"setup": name, "at_once": at_once} | summary(requests, seconds))
    return found


def run(server: "Server", count: int, at_once: int, seed: int):
    prompts = load.make_prompts(count, INPUT, VOCAB, seed)
    return asyncio.run(load.run(server.port, server.model, prompts, OUTPUT, at_once))


def summary(requests: list[load.Request], seconds: float) -> dict[str, float]:
    ttfts = [r.ttft for r in requests]
    return {
        "requests": len(requests),
        "ttft_p50": statistics.median(ttfts),
        "ttft_p90": gaps.percentile(ttfts, 0.9),
        "tpot_p50": statistics.median(r.tpot for r in requests),
        "worst_gap_p99": gaps.percentile([r.worst_gap for r in requests], 0.99),
        "tok_s": sum(r.tokens for r in requests) / seconds,
    }


class Server:
    def __init__(self, binaries: pathlib.Path, model: pathlib.Path, flags: list):
        command = [binaries / "baton", "up", "--model", model, "--port", "0", *flags]
        self.popen = subprocess.Popen(
            [str(part) for part in command], stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Server":
        for line in self.popen.stderr:
            if match := re.search(r"http://127\.0\.0\.1:(\d+)/v1", line):
                self.port = int(match[1])
                break
        else:
            raise RuntimeError(f"baton ended with {self.popen.wait()}")
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models") as answer:
            self.model = json.load(answer)["data"][0]["id"]
        # Nobody reads the rest; a full pipe must not stop the server.
        os.set_blocking(self.popen.stderr.fileno(), False)
        return self

    def __exit__(self, *_):
        self.popen.send_signal(signal.SIGINT)
        try:
            self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise
