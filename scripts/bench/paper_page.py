"""The page of scripts/bench/papers.py."""

import statistics

from bench import derive_profile, lengths, paper_plans, published_costs
from bench.derive_profile import A100
from bench.paper_plans import Workload
from bench.paper_runs import SHORT_GROUPS, SHORT_SEEDS, Found, half_width, ratios

NEAR = 0.2
ABOVE = ["published times", "short", "published times, short"]  # in tables of their own
Results = list[tuple[Workload, dict[str, Found]]]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def rate(found: Found | None) -> str:
    if found is None:
        return "-"
    if len(found.per_gpu) == 1:
        return f"{found.mean():.3g}"
    return f"{found.mean():.3g} ± {half_width(found.per_gpu):.2g}"


def ratio(a: Found | None, b: Found | None) -> str:
    if a is None or b is None:
        return "-"
    if not b.mean():
        return "-" if not a.mean() else "∞"
    if len(a.per_gpu) != len(b.per_gpu) or 0.0 in b.per_gpu:
        return f"{a.mean() / b.mean():.2f}"
    values = ratios(a, b)
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {half_width(values):.2g}"


def percent(found: Found | None, what: str) -> str:
    return f"{100 * getattr(found, what):.0f} %" if found else "-"


def within(a: Found | None, b: Found | None, paper: float) -> str:
    if a is None or b is None:
        return "-"
    if not b.mean():
        return "**∞**"
    off = a.mean() / b.mean() / paper - 1
    said = f"{100 * off:+.0f} %"
    return said if abs(off) <= NEAR else f"**{said}**"


def headline(results: Results, times: str) -> str:
    rows = []
    for w, found in results:
        split, vllm = found["split" + times], found["vLLM" + times]
        measured = (
            f"{w.paper_split:g}, {w.paper_split / w.paper_ratio:.3g}" if w.paper_split else "-"
        )
        rows.append([
            w.title, f"`{w.slo}`", measured, f"{w.paper_ratio:.2f}",
            rate(split), rate(vllm), ratio(split, vllm), within(split, vllm, w.paper_ratio),
            f"{percent(split, 'idle_met')}, {percent(vllm, 'idle_met')}",
        ])  # fmt: skip
    head = ["", "targets", "paper: split, vLLM", "ratio", "here: split", "here: vLLM", "ratio",
            "off", "met, idle"]  # fmt: skip
    return table(head, rows)


def binding(results: Results) -> str:
    rows = []
    for w, found in results:
        for name in ["split", "vLLM", "split, published times", "vLLM, published times"]:
            f = found[name]
            met = [percent(f, what) for what in ["ttft_met", "tpot_met", "idle_met"]]
            rows.append([w.title, name, rate(f), *met])
    return table(["", "plan", "goodput", "TTFT met there", "TPOT met there", "both, idle"], rows)


def ceilings() -> str:
    rows = []
    for w in paper_plans.WORKLOADS:
        most = paper_plans.ceilings(w, lengths.drawn(w.means, 500))
        said = f"{w.paper_split:g}" if w.paper_split else "-"
        rows.append([w.title, *(f"{rate:.3g}" for rate in most), said])
    return table(["", "prefill, at most", "decode, at most", "the paper's goodput"], rows)


def best_mixed(results: Results) -> str:
    rows = []
    for w, found in results:
        best, promised = found.get("best"), found.get("best, goodput")
        rows.append([
            w.title, found.get("best is", "-").removeprefix("mixed, "), rate(best),
            ratio(found["split"], best), rate(found["split, goodput"]),
            rate(promised), ratio(found["split, goodput"], promised),
        ])  # fmt: skip
    head = ["", "best mixed plan", "its goodput", "split : it", "split, `goodput`",
            "mixed, `goodput`", "split : it"]  # fmt: skip
    return table(head, rows)


def scan(results: Results) -> str:
    rows = []
    for w, found in results:
        for tp in w.mixed_tps:
            cells = []
            for chunk in paper_plans.BUDGETS:
                kind = f"chunks of {chunk}" if chunk else "whole prompts"
                cells.append(rate(found[f"mixed, TP {tp}, {kind}"]))
            rows.append([w.title, str(tp), *cells])
    heads = [str(chunk) if chunk else "whole" for chunk in paper_plans.BUDGETS]
    return table(["", "TP", *heads], rows)


def sensitivity(results: Results) -> str:
    rows = []
    for w, found in results:
        names = [name.removeprefix("split, ") for name in found if name.startswith("split, ")]
        for how in names:
            if f"vLLM, {how}" in found and how not in ABOVE:
                split, vllm = found[f"split, {how}"], found[f"vLLM, {how}"]
                if split or vllm:
                    rows.append([w.title, how, rate(split), rate(vllm), ratio(split, vllm)])
    return table(["", "", "split", "vLLM", "ratio"], rows)


def checked() -> str:
    """What the rule gives, beside what was published."""
    rows = []
    models = {m.name: m for m in (derive_profile.OPT_13B, derive_profile.OPT_66B)}
    reached = derive_profile.measured_shares()
    for (engine, name, tp), of in published_costs.PUBLISHED.items():
        us = derive_profile.step_us(models[name], A100, tp, reached)
        cells = []
        for tokens in (256, 756, 1738):
            cells.append(beside(derive_profile.prompt_s(us, tokens), of.prompt_s(tokens)))
        for sequences in (1, 32):
            context = 800 * sequences
            cells.append(
                beside(
                    derive_profile.decode_s(us, sequences, context), of.decode_s(sequences, context)
                )
            )
        rows.append([engine, name, str(tp), *cells])
    head = ["engine", "model", "TP", "prompt of 256", "756", "1738", "decode 1 × 800", "32 × 800"]
    return table(head, rows)


def beside(ours: float, published: float) -> str:
    return f"{1e3 * ours:.1f} : {1e3 * published:.1f} ms ({100 * (ours / published - 1):+.0f} %)"


def page(results: Results, runs, commit: str) -> str:
    seeds = f"{runs.seeds[0]}..{runs.seeds[-1]}"
    return f"""# The papers' goodput, simulated

Written by `scripts/bench_papers` at commit {commit}: what DistServe (Zhong et al., OSDI 2024) measured on
A100-80GB, repeated by `baton sim` ([simulator.md](simulator.md)). **Goodput** is the highest rate of requests
a second and GPU at which 90 % of all requests meet both targets. Figures with ± are of {runs.requests}
requests a run and seeds {seeds}: the 95 % interval over seeds; others of {runs.quick} requests and one seed,
sought to 2 %.

## The papers' ratios

{headline(results, "")}
The same with the step times that DistServe's authors measured of their own engine and of vLLM:

{headline(results, ", published times")}
With as few requests as the paper's artifact has in a run (25, 50 or 100 a GPU, by workload), the mean
of {SHORT_SEEDS} runs a rate, {SHORT_GROUPS} times; first by our times, then by the published ones:

{headline(results, ", short")}
{headline(results, ", published times, short")}
"Off": our ratio against the paper's; beyond ±20 % **so**. "Met, idle": how many requests split and vLLM
serve in time if hardly any other is there.

{WHY}
{ceilings()}
What binds, and how much each plan meets at its goodput:

{binding(results)}
## The best mixed plan

The same GPUs as mixed workers, prompts in chunks beside the running sequences, with the best number of
prompt tokens in a step and the best tensor parallelism; `least_loaded` without admission, as the split
beside it. `goodput`: our default policy with admission, for both.

{best_mixed(results)}
{MIXED}
How it was chosen, by prompt tokens in a step:

{scan(results)}
## How sure this is

All steps a fifth faster or slower; the targets of the paper's artifact; for ShareGPT also more memory,
lengths that are not cut to OPT's 2048 positions (`lengths:`), and, where a file of them was given,
those that Sarathi-Serve counted (another tokenizer, whole conversations; those below 2048 tokens);
for LongBench answers of two kinds.

{sensitivity(results)}
## What is simulated

{WHAT}
The rule beside what was published, a step of ours : theirs:

{checked()}"""


WHY = """**Why not where not.**

- **The paper's figures for DistServe are those of short runs.** By its own published step times, and with
  all of the GPUs' memory, its placements cannot serve as much for long, on time or late (the next table:
  requests a second and GPU). Decode's memory holds some 75 to 90 sequences of ShareGPT's mean length; a
  run of 200 or 300 requests is over soon after it is full, and nobody's queue grows to 15 s in half a
  minute. In runs as short as those of the paper's artifact, with its step times, its three figures come
  out to within 14 % (the fourth table).
- **Those for vLLM do not come out**, and a ratio is no better than its lower half. At two of four targets
  an idle vLLM is at the edge: OPT-13B on ShareGPT, where by the published times a prompt beyond some 1,300
  tokens takes longer than 0.25 s, and OPT-66B on HumanEval, where a decode step that must end first makes
  the difference. There a fifth of the step time moves goodput from next to nothing to what split serves, and any
  ratio can be had. For OPT-66B on ShareGPT and LongBench the paper's vLLM serves a third to a half of what
  its published step times allow, in long runs and in short ones. Part of it may be that the artifact goes
  by other targets than the paper: with its 0.4 and 0.1 s for ShareGPT and the published times the ratio is
  the paper's (below), though neither of its figures is. Another part is in two things that were worse for
  vLLM than here (see the end), and for LongBench in the answers: many short ones are late by one prompt.
- **The engines differ, too**: published prompts of vLLM take 15 to 58 % longer than those of DistServe's own
  engine on the same GPUs. With the same times for both, as in the first table, that part of the ratio is
  gone, and what is left is what placement does.
"""
MIXED = """Why mixed workers do so well here: TPOT may be two to five times what a decode step takes, so that riding
along with prompts costs nothing that counts, and each GPU's memory and time is for whatever there is. The
split has all running sequences in the memory of a third or half of its GPUs, which is what binds it on
ShareGPT. Its placement is the paper's, which was chosen for the paper's engine; mixed workers' is the
best for the step times here.
"""
WHAT = """- **Step times** are derived, not measured, by one rule from the data sheet's roofs and the shares of them
  that our H200 profile reached; `scripts/bench/derive_profile.py` states it, `deploy/profiles/a100-*`
  are its results. Nothing in it was chosen by a result of this page. Both systems get the same times.
- **vLLM of that time**: one engine, TP 1 for OPT-13B and 4 for OPT-66B, whole prompts, up to 16,384
  prompt tokens in a step, first come, first served. Two things are better than they were: running
  sequences get a token in a prompt's step, too (vLLM's waited), and nothing is spent between steps.
- **DistServe**: the placement that its table 3 gives: OPT-13B prefill TP 2, decode TP 1; OPT-66B prefill
  TP 4, decode TP 2 in a pipeline of two stages. Such a pipeline decodes two batches in turn, each of
  which gets a token after the time of a whole step: simulated as two workers of TP 2 with half of the
  four GPUs' memory each. First come, first served; KV crosses NVLink.
- **Lengths** are log-normal with a standard deviation equal to the mean, cut to OPT's 2048 positions as the
  paper's data were, and scaled so that what is left has its means (`scripts/bench/lengths.py`).
- Nine tenths of the GPUs' memory hold weights and KV. Blocks are of 16 tokens. No prompt shares a prefix.
"""
