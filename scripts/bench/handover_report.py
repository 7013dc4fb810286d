"""The hand-over's figures as a part of docs/benchmarks.md."""

from bench import gaps

# What is wanted.
SLOPES = {"hand-off, digests off": 0.95, "hand-off, digests checked": 0.85}
MORE_US = 200  # of the intercept
SECOND_RATIO = 1.05
MORE_TTFT = MORE_EXPOSED = 1e-3
GAP_RATIO = 2.0

# SmolLM2-135M's layer of a token: K and V of 3 heads of 64 bf16; of what a last step computes.
LAYER_BYTES, CHUNK_TOKENS = 768, 256

HEAD = """\
## The hand-over

Measured on {cpu}, by parts; to be read as ratios of one run. OpenMP waits passively.
"""

MEASURED = """\

`{command}` at commit {commit}, {date}; load before: {load}.
"""

WIRE = """\

### On the wire
{measured}
Time = a + b · bytes through {least} or more interleaved pairs a size with a raw loop of UCX gets of
the same segments, from 16 tokens of SmolLM2-135M's KV up (least absolute deviations). The hand-off's
side is all of it: credit, announcements, reads, commit, acknowledgement. Wanted: 1/b at least 95 %
of raw without digests and 85 % with them; a at most raw's + 200 µs; of the longest, at most one
descriptor for each range of layers that is announced of each run of neighbouring blocks.

| over | read | digests | a, raw a | | 1/b, raw 1/b GB/s | of raw | | descriptors | |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""

SECOND = """\

### The second token
{measured}
A prompt of random tokens to an idle split cluster (a prefill and a decode worker) and to an idle
mixed worker, in turns, {pairs} pairs a length: what the client saw, medians and (for ratios and
differences of pairs) where the median lies by 95 %. Each worker has one thread and one core: prefill
on one, decode and mixed on the other. Routers and client are on prefill's: idle when the second token
comes, but busy with the commit for some 0.1 ms when the first does, which makes split's TTFT that
much later and its second gap that much shorter than with a core of their own, as `mixed` leaves
them. A prompt is computed 0.2 to 2 % longer, in different runs: routers and client take their part of its
core, announcements to decode theirs, and its cache is shared memory in small pages, where a mixed
worker's has huge ones. Without digests it is no shorter (24 pairs at 128 and 512 tokens). With both on
decode's core instead, and prefill's its own, TTFT was 16 ms earlier than in `mixed` (of 3.8 s at 4,000 tokens,
16 pairs; beside it, with both on prefill's, 88 ms later), but then short prompts' first tokens come 1
to 3 ms later and second gaps shrink or grow by a tenth, since decode's first step has the core that
delivers them. Two cores have no place that is nobody's. The cores change places from pair to pair. The second gap is the time from the first token to
the second; a step is the median of the gaps behind it in the same stream. Wanted: the second gap at
most 5 % longer than in `mixed`, and TTFT at most 1 ms later.

| prompt | step, split and mixed, ms | second gap, split and mixed, ms | ratio | | TTFT, mixed, ms | split − mixed, ms, of it | |
|---|---|---|---|---|---|---|---|
{rows}

What is exposed: the second gap without one step. Wanted: at most the read of one layer (of a step of
{chunk} tokens: {layer:.2f} ms) and 1 ms, whatever the length. Beside it what the decode worker says
itself (means): from the commit's arrival to the last byte checked, from an announcement to the end
of its read, descriptors and MB a hand-off.

| prompt | exposed, ms | | in `mixed`, ms | commit to checked, ms | announce to read, ms | descriptors | MB |
|---|---|---|---|---|---|---|---|
{exposed}

Stages of the way to the first and the second token, as the routers tell them (means, ms):

| prompt | cluster | {stages} |
|---|---|{dashes}|
{stage_rows}
"""

ARRIVALS = """\

### Four streams while prompts arrive
{measured}
Four streams decode, alone and while a prompt of 1,500 tokens arrives every 5 s, in turns; cores as
above. Gaps between tokens of the four, ms. Wanted of the split cluster: p99 with arrivals at most
twice that without.

| cluster | alone p50 / p99 / worst | with arrivals p50 / p99 / worst | p99's ratio | | arrivals: count, TTFT p50 |
|---|---|---|---|---|---|
{rows}
"""


def markdown(parts: dict) -> str:
    """Of the parts "wire", "second" and "arrivals" those that are there."""
    text = HEAD.format(cpu=next(iter(parts.values()))["machine"]["CPU"])
    wire = parts["wire"]["figures"] if "wire" in parts else []
    for name, part in parts.items():
        figures, said = part["figures"], measured(part)
        if name == "wire":
            least = min(fit["rounds"] for fit in wire)
            rows = "\n".join(map(wire_row, wire))
            text += WIRE.format(measured=said, least=least, rows=rows)
        elif name == "second":
            text += second_text(figures, raw_speed(wire), said)
        else:
            text += ARRIVALS.format(measured=said, rows="\n".join(map(arrivals_row, figures)))
    return text


def measured(part: dict) -> str:
    about = part["machine"]
    return MEASURED.format(
        command=part["command"],
        commit=about["Commit"],
        date=about["Date"],
        load=about["Load before"],
    )


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def word(met: bool) -> str:
    return "met" if met else "**missed**"


def ms(seconds: float | None, digits: int = 2) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.{digits}f}"


def wire_row(fit: dict) -> str:
    line, raw, least = fit["line"], fit["raw"], SLOPES[fit["name"]]
    return row(
        fit["transport"],
        fit["how"],
        fit["name"].removeprefix("hand-off, digests "),
        f"{line['us']:.0f}, {raw['us']:.0f} µs",
        word(fit["more_us"] <= MORE_US),
        f"{line['gb_s']:.2f}, {raw['gb_s']:.2f}",
        f"{100 * fit['slope']:.0f} % (≥ {100 * least:.0f})",
        word(fit["slope"] >= least),
        f"{fit['descriptors']} (≤ {fit['bound']})",
        word(fit["descriptors"] <= fit["bound"]),
    )


def raw_speed(wire: list[dict]) -> float:
    """Bytes/s at which some layers of blocks are read over shared memory."""
    for fit in wire:
        if fit["transport"] == "shm" and fit["how"] != "whole blocks":
            return fit["raw"]["gb_s"] * 1e9
    return 10e9


def second_text(second: list[dict], speed: float, said: str) -> str:
    layer = LAYER_BYTES * CHUNK_TOKENS / speed
    names = sorted({name for found in second for of in found["stages"].values() for name in of})
    return SECOND.format(
        measured=said,
        pairs=min(len(found["rows"]) for found in second),
        rows="\n".join(map(second_row, second)),
        chunk=CHUNK_TOKENS,
        layer=layer * 1e3,
        exposed="\n".join(exposed_row(found, layer + MORE_EXPOSED) for found in second),
        stages=" | ".join(names),
        dashes="|".join("---" for _ in names),
        stage_rows="\n".join(
            row(f"{found['tokens']}", cluster, *(ms(of.get(name)) for name in names))
            for found in second
            for cluster, of in found["stages"].items()
        ),
    )


def medians(found: dict, take) -> dict[str, float]:
    return gaps.median_of([take(pair["split"], pair["mixed"]) for pair in found["rows"]])


def second_row(found: dict) -> str:
    def median(which: str, key: str) -> float:
        return gaps.median_of([pair[which][key] for pair in found["rows"]])["median"]

    ratio = medians(found, lambda split, mixed: split["second"] / mixed["second"])
    later = medians(found, lambda split, mixed: split["ttft"] - mixed["ttft"])
    mixed_ttft = median("mixed", "ttft")
    share = 100 * later["median"] / mixed_ttft
    return row(
        f"{found['tokens']}",
        f"{ms(median('split', 'step'))}, {ms(median('mixed', 'step'))}",
        f"{ms(median('split', 'second'))}, {ms(median('mixed', 'second'))}",
        f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})",
        word(ratio["median"] <= SECOND_RATIO),
        ms(mixed_ttft, 1),
        f"{ms(later['median'])} ({ms(later['low'])} to {ms(later['high'])}), {share:.1f} %",
        word(later["median"] <= MORE_TTFT),
    )


def exposed_row(found: dict, bound: float) -> str:
    split = medians(found, lambda split, _: split["second"] - split["step"])
    mixed = medians(found, lambda _, mixed: mixed["second"] - mixed["step"])
    said = found["metrics"]
    return row(
        f"{found['tokens']}",
        f"{ms(split['median'])} ({ms(split['low'])} to {ms(split['high'])})",
        word(split["median"] <= bound),
        ms(mixed["median"]),
        ms(said["exposed"], 3),
        ms(said["announce_to_read"], 3),
        f"{said['read_segments']:.0f}",
        f"{said['read_bytes'] / 1e6:.1f}",
    )


def arrivals_row(found: dict) -> str:
    def cell(run: dict) -> str:
        return " / ".join(ms(run[key], 1) for key in ("p50", "p99", "worst"))

    alone, under = found["alone"], found["arrivals"]
    ratio = under["p99"] / alone["p99"]
    verdict = word(ratio <= GAP_RATIO) if found["cluster"] == "split" else "for comparison"
    came = f"{under['arrived']}, {ms(under['ttft'], 0)} ms"
    return row(found["cluster"], cell(alone), cell(under), f"{ratio:.2f}", verdict, came)
