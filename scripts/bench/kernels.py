"""The kernels of prefill and decode alone, by ops_bench, beside the roofs of the same run."""

import json
import pathlib
import subprocess

# What is shown, the benchmark without its threads, and the counter.
KERNELS = [
    ("matrix products of 512 rows", "BM_ModelStep/threads:{}/m:512", "GFLOP/s"),
    ("matrix products of 16 rows", "BM_ModelStep/threads:{}/m:16", "GFLOP/s"),
    ("matrix products of 1 row", "BM_ModelStep/threads:{}/m:1", "GB/s"),
    ("attention, 512 rows from an empty cache",
     "BM_Attention/threads:{}/sequences:1/length:512/rows:512", "GFLOP/s"),
    ("attention, 16 rows at 512 tokens",
     "BM_Attention/threads:{}/sequences:16/length:512/rows:1", "KV_GB/s"),
]  # fmt: skip


def measure(binaries: pathlib.Path, threads: int) -> list[dict]:
    names = [name.format(threads) for _, name, _ in KERNELS]
    pattern = "|".join([f"^{name}/" for name in names] + [f"BM_Roof/threads:{threads}/"])
    command = [binaries / "ops_bench", "--benchmark_format=json", f"--benchmark_filter={pattern}"]
    shown = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(shown.stdout)["benchmarks"]

    def of(name: str) -> dict:
        return next(run for run in found if run["name"].startswith(name + "/"))

    roof = of(f"BM_Roof/threads:{threads}")
    arithmetic = roof.get("bf16_GFLOP/s", roof["GFLOP/s"])
    rows = []
    for (what, _, counter), name in zip(KERNELS, names):
        unit = counter.removeprefix("KV_")
        limit = arithmetic if unit == "GFLOP/s" else roof["GB/s"]
        rows.append({"what": what, "value": of(name)[counter], "unit": unit, "roof": limit})
    return rows
