"""The figures as a page of Markdown."""

HEAD = """\
# Benchmarks

Measured by `{command}` on one machine in one run; to be read as ratios, since a virtual machine's
absolute figures move by a third from day to day.

| machine | |
|---|---|
{machine}
"""

ENGINES = """\

## The engine against llama.cpp

The same bf16 weights from one GGUF file (SmolLM2-135M-Instruct), {threads} threads each, in turns;
the median of {rounds} rounds, and the least and the most. Decode runs at a context of 512 tokens,
every sequence with a prompt of its own. llama.cpp is what `llama-cpp-python` 0.3.36 builds here
from its source.

| tokens/s | Baton | llama.cpp | ratio | target | roof | Baton, llama.cpp of it |
|---|---|---|---|---|---|---|
{rows}

The roof is measured in the same run: independent multiply-adds in {arithmetic} on all threads and
nothing else ({roof_gflop_s:.0f} GFLOP/s), over what a token needs at least; for decode, if that is
less, the bytes of weights and cache that a step reads, at the speed of reading memory from end to end
({roof_gb_s:.0f} GB/s).
"""

KERNELS = """\

The kernels alone (`ops_bench`, the best run of each, {threads} threads, this model's shapes, weights
and cache in rotation past the processor's caches); the roofs are those above, measured again:

| kernel | | roof | of it |
|---|---|---|---|
{rows}

What a whole step adds: norms, RoPE, SiLU, the rounding of activations, drawing, and the threads'
waiting for one another between some nine regions a layer. Attention in prefill has its softmax and
its causal edges beside the products; in decode it reads runs of 2 KiB (a head's share of a block of
16 tokens in one layer), which come at half the speed of memory read from end to end, and turns each
key over for only three queries.
"""

SERVED = """\

## Served

512 random tokens in (no prefix is cached), 64 out, streamed over HTTP; times in milliseconds. A
request's worst gap is the longest wait between two of its tokens; of these the 99th percentile.

| cluster | at once | TTFT p50 / p90 | TPOT p50 | worst gap p99 | tokens/s out |
|---|---|---|---|---|---|
{rows}
"""


WIRE = """\

## The hand-off against raw UCX

`scripts/bench_transfer`, in the same run: a KV cache read by one process out of another's memory,
as a plain loop of UCX gets of the same segments reads it, and through Baton: credit, announcements,
reads, digests, commit and acknowledgement. Shared memory and TCP over loopback; a
135M model's and an 8B model's layouts; while layers are still computed (in the ranges that prefill
announces of a prompt of one chunk) and afterwards (whole blocks). Medians of {rounds} rounds, the
least and the most. At the end, lines through the times of sizes from 16 tokens up: the share of
raw's slope is to be 95 % without digests and 85 % with them.

```
{text}
```
"""


def markdown(results: dict) -> str:
    machine = "\n".join(f"| {key} | {value} |" for key, value in results["machine"].items())
    text = HEAD.format(command=results["command"], machine=machine)
    if engines := results["engines"]:
        rows = "\n".join(map(engine_row, engines))
        text += ENGINES.format(
            threads=engines[0]["threads"],
            rounds=results["rounds"],
            rows=rows,
            **results["roofs"],
        )
    if kernels := results["kernels"]:
        rows = "\n".join(map(kernel_row, kernels))
        text += KERNELS.format(threads=engines[0]["threads"], rows=rows)
    if served := results["served"]:
        text += SERVED.format(rows="\n".join(map(served_row, served)))
    if wire := results["wire"]:
        text += WIRE.format(**wire)
    return text


def engine_row(figure: dict) -> str:
    def cell(spread: dict, digits: int) -> str:
        numbers = [f"{spread[key]:.{digits}f}" for key in ("median", "least", "most")]
        return "**{}** ({} to {})".format(*numbers)

    cells = [figure["what"], cell(figure["baton"], 0), cell(figure["llama.cpp"], 0)]
    roof = figure["roof"]["median"]
    shares = [f"{100 * figure[who]['median'] / roof:.0f} %" for who in ("baton", "llama.cpp")]
    cells += [cell(figure["ratio"], 2), f"≥ {figure['target']}", f"{roof:.0f}", ", ".join(shares)]
    return f"| {' | '.join(cells)} |"


def kernel_row(kernel: dict) -> str:
    value, roof, unit = kernel["value"], kernel["roof"], kernel["unit"]
    return f"| {kernel['what']} | {value:.0f} {unit} | {roof:.0f} | {100 * value / roof:.0f} % |"


def served_row(run: dict) -> str:
    ms = {key: f"{run[key] * 1e3:.0f}" for key in
          ["ttft_p50", "ttft_p90", "tpot_p50", "worst_gap_p99"]}  # fmt: skip
    cells = [run["setup"], str(run["at_once"]), f"{ms['ttft_p50']} / {ms['ttft_p90']}"]
    cells += [ms["tpot_p50"], ms["worst_gap_p99"], f"{run['tok_s']:.0f}"]
    return f"| {' | '.join(cells)} |"
