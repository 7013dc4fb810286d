"""Counts the instructions that metrics and traces take of a router's and a decode worker's, by callgrind.

    scripts/bench_metrics [--tokens N] [--baton FILE]

A prefill and a decode worker, both emulated, and a router, which tells a collector of every request; 32
streams at once. Once the router and once the decode worker run under callgrind, which counts from the
first request on. "Metrics" is all that a thread spends in the library of metrics and below it; "traces",
what handing a request to the exporter takes, and all of the exporter's own thread. Instructions do not
depend on what else the machine does; how many tokens come at once does, and that by some per cent.
Nothing is scraped meanwhile: router_scrape_bench is for that. Needs valgrind, the release preset, a minute.
"""

import argparse
import asyncio
import http.server
import pathlib
import re
import subprocess
import tempfile
import threading
import time
import urllib.request

from bench import cluster, load

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILE = ROOT / "deploy/profiles/h200-llama3-8b.yaml"
METRICS = re.compile(r"^(prometheus::|baton::(Token)?Metrics::)")
TRACES = re.compile(r"baton::router::.*Exporter::")
EXPORTER_THREAD = re.compile(r"\) baton::router::.*Exporter::(run|deliver|encode|take)\(")
AT_ONCE, PROMPT, OUTPUT = 32, 64, 200
READY_SECONDS = 120


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes traces and forgets them."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def inclusive(text: str, wanted: re.Pattern) -> int:
    """Instructions of all calls from elsewhere into functions of that name."""
    names, own, total, callee = {}, "", 0, ""
    lines = iter(text.splitlines())

    def name(ref: str) -> str:
        number, _, said = ref.partition(" ")
        if said:
            names[number] = said
        return names[number]

    for line in lines:
        if line.startswith("fn="):
            own = name(line[3:])
        elif line.startswith("cfn="):
            callee = name(line[4:])
        elif line.startswith("calls="):
            cost = int(next(lines).split()[1])
            if wanted.search(callee) and not wanted.search(own):
                total += cost
    return total


def counted(folder: pathlib.Path, tokens: int) -> dict:
    """Of the process whose dump lies there."""
    total = metrics = adding = exporting = 0
    for file in folder.glob("callgrind.out*"):
        text = file.read_text()
        found = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
        here = int(found[1]) if found else 0
        total += here
        metrics += inclusive(text, METRICS)
        if EXPORTER_THREAD.search(text):
            exporting += here
        else:
            adding += inclusive(text, TRACES)
    return {
        "all, a token": total / tokens,
        "metrics, a token": metrics / tokens,
        "metrics, of all": metrics / total,
        "traces, handed over, of all": adding / total,
        "traces, made and sent by a thread of their own, of all": exporting / total,
    }


class Watched(cluster.Started):
    def __init__(self, baton, model, folder: pathlib.Path, watched: str, collector: int):
        self.baton, self.model, self.folder = baton, model, folder
        self.watched, self.collector = watched, collector
        self.processes: list[cluster.Process] = []

    def start(self, name: str, *args) -> cluster.Process:
        command = [self.baton, *args, "--model", self.model, "--log-level", "warn"]
        if name == self.watched:
            out = self.folder / "callgrind.out"
            command = ["valgrind", "--tool=callgrind", "--separate-threads=yes",
                       f"--callgrind-out-file={out}", *command]  # fmt: skip
        self.processes.append(cluster.Process(name, command, self.folder))
        return self.processes[-1]

    def _start(self):
        workers = [
            self.start(role, "worker", "--role", role, "--name", role, "--listen", "127.0.0.1:0",
                       "--metrics-listen", "127.0.0.1:0", "--device", "emulated", "--profile", PROFILE,
                       "--kv-gib", 1, "--transport", "tcp")
            for role in ("prefill", "decode")
        ]  # fmt: skip
        self.router = self.start(
            "router", "router", "--listen", "127.0.0.1:0", "--admission=false",
            "--otlp-endpoint", f"http://127.0.0.1:{self.collector}",
            "--workers", *[f"127.0.0.1:{w.ports['rpc']}" for w in workers],
        )  # fmt: skip
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no model is ready; logs are in {self.folder}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.router.ports['http']}/ready").close()
        except OSError:
            return False
        return True

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop()

    def control(self, order: str) -> None:
        pid = next(p.popen.pid for p in self.processes if p.name == self.watched)
        subprocess.run(["callgrind_control", order, str(pid)], check=True, capture_output=True)


def measure(baton, model, watched: str, tokens: int, collector: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        with Watched(baton, model, path, watched, collector) as running:
            port = running.router.ports["http"]
            name = cluster.model_of(port)
            ask = lambda count, seed: asyncio.run(  # noqa: E731
                load.run(port, name, load.make_prompts(count, PROMPT, 49_000, seed), OUTPUT, AT_ONCE)
            )
            ask(4, 1)
            running.control("--zero")
            requests = ask(max(1, tokens // OUTPUT), 2)[0]
        return counted(path, sum(request.tokens for request in requests))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--baton", type=pathlib.Path, default=ROOT / "build/release/bin/baton")
    parser.add_argument("--tokens", type=int, default=20_000)
    args = parser.parse_args()
    model = subprocess.run([ROOT / "scripts/get_model.sh"], check=True, capture_output=True, text=True)
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    found = {
        who: measure(args.baton, model.stdout.split()[-1], who, args.tokens, collector.server_port)
        for who in ("router", "decode")
    }
    print("| instructions | router | decode worker |\n|---|---|---|")
    for what in found["router"]:
        cells = [found[who][what] for who in ("router", "decode")]
        share = what.endswith("of all")
        print(f"| {what} | " + " | ".join(f"{c:.2%}" if share else f"{c:,.0f}" for c in cells) + " |")
