"""Checks and measures Baton on this machine's NVIDIA GPU.

    scripts/gpu_check                builds the preset cuda, runs everything
    scripts/gpu_check --bundle DIR   builds, and packs what another machine needs to run it
    DIR/scripts/gpu_check --run DIR  there: needs a driver, libcublasLt and python3, nothing else

Parts (--only): ops, the operations against the CPU's, in bf16 and f16; sanitize, some of them under
compute-sanitizer; tokens, a small random model against transformers, token by token; bench, speed,
also in f16; torch, PyTorch's speed beside it. What a machine lacks is said and left out. Logs, figures and
benchmarks_gpu.md go to --out; in a checkout the page goes to docs.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from bench import gpu_bundle, gpu_facts, gpu_report, gpu_tests

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ["ops", "sanitize", "tokens", "bench", "torch"]
DTYPES = ["bf16", "f16"]
# Small shapes of every operation: under compute-sanitizer a kernel runs a hundred times longer.
SMALL = ":".join(
    [
        "Small/*",
        "CudaSample.Small*",
        "CudaElementwise.OddWidths",
        "CudaElementwise.EmbedTakesRowsOfEitherType",
        "CudaElementwise.GatherCopiesTheRowsAskedFor",
        "CudaElementwise.DrawnTokensTakeTheirPlaces",
        "CudaElementwise.RowsMayStandApart",
        "CudaMatrices.RowsMayStandApart",
        "CudaRope.CacheRoundsToNearestEvenAndKeepsNaN",
        "CudaGraph.ALaunchedAgainLayerIsTheEagerOne",
    ]
)

MOST_FALLS = 6  # of a test program, before it is given up


@dataclasses.dataclass
class Run:
    """A program's end."""

    status: int | None  # None: it ran out of time
    seconds: float
    text: str


@dataclasses.dataclass
class Verdict:
    ok: bool | None  # None: not run
    line: str


class Check:
    def __init__(self, options: argparse.Namespace, where: gpu_bundle.Programs):
        self.options, self.where = options, where
        self.out: pathlib.Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.environment = where.environment()
        self.verdicts: dict[str, dict] = {}

    def run(self, name: str, command: list, timeout: float, environment=None) -> Run:
        """Into a log of its own; the last of several with one name is kept behind the others."""
        command = [str(word) for word in command]
        log = self.out / f"{name}.log"
        begin = time.monotonic()
        with log.open("a") as file:
            print(f"$ {shlex.join(command)}", file=file, flush=True)
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment or self.environment,
                start_new_session=True,
            )
            try:
                status = process.wait(timeout)
            except BaseException as error:
                # compute-sanitizer's program is a child of its own: the whole group goes.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                status = None
        text = log.read_text(errors="replace").rsplit("\n$ ", 1)[-1]
        return Run(status, time.monotonic() - begin, text)

    def part(self, name: str) -> Verdict:
        (self.out / f"{name}.log").unlink(missing_ok=True)
        begin = time.monotonic()
        try:
            verdict = getattr(self, name)()
        except OSError as error:
            verdict = Verdict(False, f"could not be run: {error}")
        seconds = time.monotonic() - begin
        word = {True: "ok", False: "FAILED", None: "not run"}[verdict.ok]
        print(f"{name:8} {word}, {seconds:.0f} s: {verdict.line}", flush=True)
        self.verdicts[name] = {"ok": verdict.ok, "line": verdict.line, "seconds": seconds}
        return verdict

    def ops(self) -> Verdict:
        verdicts = {
            dtype: self.tests("ops", [self.where.program("ops_cuda_test")], "*",
                              self.environment | {"BATON_TEST_DTYPE": dtype})[0]
            for dtype in DTYPES
        }  # fmt: skip
        if any(v.ok is None for v in verdicts.values()):
            return verdicts["bf16"]
        line = "; ".join(f"{dtype}: {v.line}" for dtype, v in verdicts.items())
        return Verdict(all(v.ok for v in verdicts.values()), line)

    def sanitize(self) -> Verdict:
        sanitizer = gpu_facts.find_program("compute-sanitizer")
        if sanitizer is None:
            return Verdict(None, "no compute-sanitizer here")
        lines, ok = [], True
        for tool in self.options.sanitizers:
            command = [sanitizer, "--tool", tool, self.where.program("ops_cuda_test")]
            verdict, text = self.tests("sanitize", command, SMALL)
            if "Device not supported" in text:
                return Verdict(None, "compute-sanitizer does not support this device")
            found = gpu_tests.sanitizer_verdict(text)
            lines.append(f"{tool}: {found.line}; {verdict.line}")
            ok = ok and found.ok and bool(verdict.ok)
        return Verdict(ok, "; ".join(lines))

    def tests(
        self, name: str, command: list, pattern: str, environment=None
    ) -> tuple[Verdict, str]:
        """A GoogleTest program. Where it falls or hangs in one test, the others still run."""
        seen, text, end = gpu_tests.Seen(), "", time.monotonic() + self.options.timeout
        for _ in range(MOST_FALLS):
            left = ":".join(sorted(seen.begun))
            timeout = min(self.options.test_timeout, max(end - time.monotonic(), 1))
            filtered = [*command, f"--gtest_filter={pattern}-{left}"]
            run = self.run(name, filtered, timeout, environment)
            text += run.text
            seen.read(run.text)
            if run.status is not None and seen.ended(run.text):
                break
            if not seen.note_fall():
                break
        return Verdict(seen.ok(run.status), seen.line(last_line(run))), text

    def tokens(self) -> Verdict:
        python = self.python_with_torch()
        if python is None:
            return Verdict(None, "no torch and transformers here")
        folder = self.out / "tokens"
        peer = self.where.scripts / "bench/torch_peer.py"
        made = self.run("tokens", [python, peer, "tokens", "--out", folder],
                        self.options.timeout, dict(os.environ))  # fmt: skip
        if made.status != 0:
            return Verdict(False, f"the reference was not made: {last_line(made)}")
        run = self.run("tokens", [python, peer, "compare", "--dir", folder, "--generate",
                                  self.where.program("generate"), "--json",
                                  self.out / "tokens.json"], self.options.timeout)  # fmt: skip
        lines = [line for line in run.text.splitlines() if "prompts equal" in line]
        return Verdict(run.status == 0, "; ".join(lines) or last_line(run))

    def bench(self) -> Verdict:
        command = [self.where.program("gpu_bench"), *self.quick(), "--json"]
        in_f16 = [self.out / "bench_f16.json", "--dtype", "f16", "--only",
                  "products,attention,elementwise,steps"]  # fmt: skip
        environment = self.environment
        if cupti := gpu_facts.find_library("libcupti.so.13") or gpu_facts.find_library(
            "libcupti.so"
        ):
            environment = environment | {"BATON_CUPTI": str(cupti)}
        with gpu_facts.Watch() as watch:
            run = self.run("bench", [*command, self.out / "bench.json"], self.options.timeout,
                           environment)  # fmt: skip
            if run.status == 0:
                run = self.run("bench", [*command, *in_f16], self.options.timeout)
        (self.out / "watch.json").write_text(json.dumps(watch.summary()))
        if "no usable NVIDIA GPU" in run.text:
            return Verdict(None, last_line(run))
        return Verdict(run.status == 0, last_line(run))

    def torch(self) -> Verdict:
        python = self.python_with_torch()
        if python is None:
            return Verdict(None, "no torch and transformers here")
        more = ["--compile"] if self.options.compile else []
        run = self.run("torch", [python, self.where.scripts / "bench/torch_peer.py", "speed",
                                 "--json", self.out / "torch.json", *more, *self.quick()],
                       self.options.timeout, dict(os.environ))  # fmt: skip
        return Verdict(run.status == 0, last_line(run))

    def quick(self) -> list[str]:
        return ["--quick"] if self.options.quick else []

    def python_with_torch(self) -> str | None:
        for python in filter(None, [sys.executable, shutil.which("python3")]):
            found = subprocess.run(
                [python, "-c", "import torch, transformers"], capture_output=True
            )
            if found.returncode == 0:
                return python
        return None


def last_line(run: Run) -> str:
    if run.status is None:
        return f"ran out of its {run.seconds:.0f} s"
    lines = [line for line in run.text.splitlines() if line.strip()]
    said = lines[-1].strip()[:300] if lines else "said nothing"
    return said if run.status == 0 else f"status {run.status}: {said}"


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=pathlib.Path, metavar="DIR",
                        help="pack, and run nothing; DIR.tar.xz for an archive")  # fmt: skip
    parser.add_argument("--run", type=pathlib.Path, metavar="DIR", help="run what a bundle holds")
    parser.add_argument("--with", dest="also", action="append", default=[], metavar="PROGRAM",
                        help="another program of the build to pack")  # fmt: skip
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/cuda")
    parser.add_argument("--no-build", action="store_true", help="take what --build holds")
    parser.add_argument("--only", type=lambda text: text.split(","), default=PARTS,
                        help=f"some of {','.join(PARTS)}")  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, help="where logs and figures go")
    parser.add_argument("--page", type=pathlib.Path, help="where the page goes")
    parser.add_argument("--timeout", type=float, default=300, help="seconds that a part may take")
    parser.add_argument("--test-timeout", type=float, default=150,
                        help="seconds after which the tests count as hanging")  # fmt: skip
    parser.add_argument("--sanitizers", type=lambda text: text.split(","), default=["memcheck"],
                        help="its tools: memcheck,racecheck,initcheck,synccheck")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="less of bench and torch")
    parser.add_argument("--compile", action="store_true", help="torch.compile, too")
    options = parser.parse_args(given)
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.out is None:
        options.out = (options.run or ROOT / "build") / "gpu_check"
    if options.page is None:
        options.page = options.out / "benchmarks_gpu.md"
        if not options.run and set(options.only) == set(PARTS) and not options.quick:
            options.page = ROOT / "docs/benchmarks_gpu.md"
    return options


def note(options: argparse.Namespace, commit: str, facts: dict, verdicts: dict) -> None:
    """Beside what earlier runs found of other parts of the same commit."""
    path = options.out / "results.json"
    earlier = json.loads(path.read_text()) if path.exists() else {}
    if earlier.get("commit") == commit:
        verdicts = {
            name: verdicts.get(name) or earlier["verdicts"][name]
            for name in PARTS
            if name in verdicts or name in earlier["verdicts"]
        }
    flags = [flag for flag in ("quick", "compile") if getattr(options, flag)]
    command = " ".join(["scripts/gpu_check", *(f"--{flag}" for flag in flags)])
    results = {"command": command, "commit": commit, "facts": facts, "verdicts": verdicts}
    path.write_text(json.dumps(results, indent=1))


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    if options.run:
        where = gpu_bundle.Programs.of_bundle(options.run)
    else:
        if not options.no_build:
            gpu_bundle.build(ROOT, options.also)
        where = gpu_bundle.Programs.of_build(ROOT, options.build)
        if options.bundle:
            gpu_bundle.pack(ROOT, where, options.bundle, options.also)
            return 0
    facts = gpu_facts.facts()
    print(f"gpu_check: {facts.get('GPU', 'no GPU that nvidia-smi shows')}", flush=True)
    check = Check(options, where)
    verdicts = [check.part(name) for name in PARTS if name in options.only]
    note(options, where.commit, facts, check.verdicts)
    options.page.write_text(gpu_report.markdown(options.out))
    print(f"gpu_check: {options.page}")
    return 1 if any(v.ok is False for v in verdicts) else 0
