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

| tokens/s | Baton | llama.cpp | ratio | asked for |
|---|---|---|---|---|
{rows}
"""

SERVED = """\

## Served

512 random tokens in (no prefix is cached), 64 out, streamed over HTTP; times in milliseconds. A
request's worst gap is the longest wait between two of its tokens; of these the 99th percentile.

| cluster | at once | TTFT p50 / p90 | TPOT p50 | worst gap p99 | tokens/s out |
|---|---|---|---|---|---|
{rows}
"""


def markdown(results: dict) -> str:
    machine = "\n".join(f"| {key} | {value} |" for key, value in results["machine"].items())
    text = HEAD.format(command=results["command"], machine=machine)
    if engines := results["engines"]:
        rows = "\n".join(map(engine_row, engines))
        text += ENGINES.format(threads=engines[0]["threads"], rounds=results["rounds"], rows=rows)
    if served := results["served"]:
        text += SERVED.format(rows="\n".join(map(served_row, served)))
    return text


def engine_row(figure: dict) -> str:
    def cell(spread: dict, digits: int) -> str:
        numbers = [f"{spread[key]:.{digits}f}" for key in ("median", "least", "most")]
        return "**{}** ({} to {})".format(*numbers)

    cells = [figure["what"], cell(figure["baton"], 0), cell(figure["llama.cpp"], 0)]
    cells += [cell(figure["ratio"], 2), f"≥ {figure['wanted']}"]
    return f"| {' | '.join(cells)} |"


def served_row(run: dict) -> str:
    ms = {key: f"{run[key] * 1e3:.0f}" for key in
          ["ttft_p50", "ttft_p90", "tpot_p50", "worst_gap_p99"]}  # fmt: skip
    cells = [run["setup"], str(run["at_once"]), f"{ms['ttft_p50']} / {ms['ttft_p90']}"]
    cells += [ms["tpot_p50"], ms["worst_gap_p99"], f"{run['tok_s']:.0f}"]
    return f"| {' | '.join(cells)} |"
