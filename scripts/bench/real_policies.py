"""Goodput of real processes: a router, its workers and open-loop clients, each of them where it would
be, but for the device, which is emulated (docs/emulated.md) and slowed down so that two cores carry
all of it. Writes its parts of docs/benchmarks_real.md.

The machine must have nothing else to do. Parts, and the minutes that each takes:

  policies  14  each placement policy, at the edge of what the cluster serves in time, and beyond
  overload   8  three times as much as that, of clients that come again when they are told to
  routers    6  the same load through four routers, against one
  roles      9  traffic that shifts from prompts to outputs and back, on workers whose roles follow
  cpu        6  a real model on the CPU: one worker of each kind against mixed ones
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile
import time

from bench import machine, page, real_cpu, real_overload, real_placing, real_roles, real_routers
from bench.emulated import ROOT
from bench.real_cell import Context, percent, say

PAGE = ROOT / "docs/benchmarks_real.md"
PARTS = {
    "policies": real_placing.run,
    "overload": real_overload.run,
    "routers": real_routers.run,
    "roles": real_roles.run,
    "cpu": real_cpu.run,
}
HEAD = """# Real processes

Written by `scripts/bench_real_policies`; each part says when and on what. Routers, workers and clients
are processes of their own on one machine, and clients are open loop. But for the last part, workers are
emulated ([emulated.md](emulated.md)): Llama-3-8B on an H200, steps and link 8.75 times as slow. Prompts
are log-normal; how long an answer will be nobody knows beforehand: it ends at the first token with a
certain letter in it, and is of geometric length. Targets are TTFT 0.4 s and TPOT 0.06 s.

TTFT counts from the moment when the client was to ask, whether it could or not. Goodput: requests a
second that met both targets; one that was refused or failed missed. Kept: of the requests that were
accepted, how many met both. Each measurement has a cluster of its own.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a GGUF file of SmolLM2")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, help="instead of each part's own number")
    parser.add_argument("--seconds", type=float, help="of arrivals, instead of each part's own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="whether it works; writes no page")
    parser.add_argument("--output", type=pathlib.Path, default=PAGE)
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures, a line each")
    args = parser.parse_args()
    failed = 0
    for name in args.part or PARTS:
        on = machine.describe(ROOT)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            part = PARTS[name](args, Context(args.bin, args.model, pathlib.Path(folder)))
        say(f"{name}: {time.monotonic() - begun:.0f} s, {'failed' if part.failed else 'good'}")
        failed |= part.failed
        text = f"{part.text.strip()}\n\n{measured_on(command(args, name), on, part.rows)}"
        print(text, flush=True)
        write_json(args.json, name, part.rows)
        if not args.quick:
            before = args.output.read_text() if args.output.exists() else HEAD
            args.output.write_text(page.with_part(before, name, text))
    return int(failed)


def command(args, part: str) -> str:
    """What gives this part again, wherever the model is."""
    words = ["scripts/bench_real_policies", "--model", args.model.name, "--part", part]
    for name in ("rounds", "seconds", "seed"):
        if (value := getattr(args, name)) is not None:
            words += [f"--{name}", f"{value:g}"]
    return " ".join(words)


def measured_on(command: str, on: dict[str, str], rows: list[dict]) -> str:
    """The machine, and how much of it went where."""
    lines = [f"`{command}`, {on['Date']}, commit {on['Commit']}, on {on['CPU']}, {on['System']};"
             f" load before: {on['Load before']}."]  # fmt: skip
    shares = {
        name: [row[name] for row in rows if name in row]
        for name in ("busy", "client", "routers", "workers", "others")
    }
    if shares["busy"]:
        of = {name: f"{percent(sum(v) / len(v), 0)}" for name, v in shares.items()}
        late = max(row["client_late_p99"] for row in rows if "client_late_p99" in row)
        lines.append(
            f"Of the cores' time {of['busy']} was used: {of['workers']} by workers, "
            f"{of['routers']} by routers, {of['client']} by clients, {of['others']} by others. "
            f"Clients asked {1e3 * late:.1f} ms late at most (p99 of the worst measurement)."
        )
    return "\n".join(lines) + "\n"


def write_json(path: pathlib.Path | None, part: str, rows: list[dict]) -> None:
    if path is None:
        return
    with path.open("a") as file:
        for row in rows:
            json.dump({"part": part} | row, file, default=dataclasses.asdict)
            file.write("\n")
