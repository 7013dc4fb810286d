#!/usr/bin/env python3
"""The figures of scripts/gpu_check as a page of Markdown: gpu_report.py FOLDER > PAGE."""

import json
import pathlib
import sys

HEAD = """\
# Benchmarks on a GPU

Measured by `{command}` at commit {commit}, on one machine. A time is the median of several
measurements between two CUDA events, of work that was recorded as a graph unless it says otherwise;
what is read differs from call to call, so that no cache holds it, and is random.

| machine | |
|---|---|
{machine}

| check | |
|---|---|
{verdicts}
"""

ROOFS = """\

## The roofs

| | |
|---|---|
| reading memory | {read:.0f} GB/s |
| copying, read and written | {copy:.0f} GB/s |
| cuBLASLt, bf16, 8192³ | {blas:.0f} TFLOP/s |
{torch}
A share of reading, or of 8192³, below is of these.
"""

PRODUCTS = """\

## Products

The matrices of a Llama-3-8B-shaped model, m rows times [n, k], in bf16 with f32 sums; `o`, `down`
and `head` write f32, the first two onto what is there. Beside them the fastest of the algorithms
that cuBLASLt's heuristics offer. In the last column what `--deterministic` takes, as a multiple.

| | m | µs | cuBLASLt | of it | GB/s | of reading | TFLOP/s | of 8192³ | deterministic |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""

DECODE_ATTENTION = """\

## Paged attention, decode

One row a sequence; 32 heads of 128 over 8 of K and V, blocks of {block} tokens at random places,
layer after layer.

| sequences | tokens each | µs | GB/s | of reading | deterministic |
|---|---|---|---|---|---|
{rows}
"""

PREFILL_ATTENTION = """\

## Paged attention, prefill

Causal; only pairs that count are counted. Not recorded, since the host plans each chunk.

| rows | behind | µs | TFLOP/s | of 8192³ | deterministic |
|---|---|---|---|---|---|
{rows}
"""

ELEMENTWISE = """\

## Element by element

Small ones fit the L2 cache, as they do in a step, where they were just written.

| | rows | µs | GB/s |
|---|---|---|---|
{rows}
"""

DECODE = """\

## Decode steps

{layers} layers, random weights in bf16. A step is what the engine takes from one step's end to the
next one's, by the host's clock: batch to the device, the recorded pass, the head, a greedy draw,
the ids back; two steps are in flight. The bound is the sum over the parts of the larger of bytes
over the read bandwidth and cuBLASLt's own time for that product; the strict one takes cuBLASLt's
rate at 8192³ in place of the latter. Beyond parts: what the recorded pass takes beyond its parts
measured one by one, as a share of it. Traced: for how much of such steps, while CUPTI looks, the GPU
runs neither a kernel nor a copy. Looking makes steps longer, since a kernel then no longer begins
before the one before it has ended. Gaps: the same without what looking adds, as a share of the step.

{table}
"""

PREFILL = """\

## Prefill

A whole prompt in one step, from an empty cache to its last row's logits, attention included; the
operations are launched one by one.

{table}
"""

DETERMINISTIC = """\

## What `--deterministic` costs

| | fast, ms | deterministic, ms | times |
|---|---|---|---|
{rows}
"""

F16 = """\

## In f16

The same in f16, measured in the same run: what it takes, and that as a multiple of what bf16 takes.

| | bf16, µs | f16, µs | times |
|---|---|---|---|
{rows}
"""

TOKENS = """\

## Tokens against transformers

A model of 4 layers with random weights in bf16; {prompts} prompts of {shortest} to {longest} random
tokens, {drawn} tokens drawn greedily after each. The reference is transformers {transformers} in
float32 on the same weights. Where tokens part, the reference must prefer its own by no more than
{bound} in log-probability: rounding decides there. Then every place of the same texts is scored:
how often the likeliest token is the reference's, how often it is beyond that bound, and how far its
log-probability is off; median and 99th percentile may be {slack} times those of transformers in
bfloat16.

{table}
"""

TORCH = """\

## PyTorch on the same GPU

torch {torch}, transformers {transformers}, the same shape and random weights in bf16, static cache
of K and V; `scaled_dot_product_attention` over dense K and V of {batch} sequences of {context}
tokens.

| | | |
|---|---|---|
{rows}
"""

# Not measured here: what others have said, of their own machines.
PUBLISHED = """\

## Published elsewhere

Decode attention, as others published it, on their machines and with their shapes; **nothing of this
was measured here**, and none of it can be compared with the tables above but roughly.

| | shape | |
|---|---|---|
| FlashAttention 3, paged by 8, H100 ([flash-attention #1572]) | 16 sequences of 4000, 32 heads over 32 | 567 µs, 1849 GB/s, 55 % of that GPU's 3350 |
| the same | 16 of 2000 | 292 µs, 1796 GB/s |
| FlashAttention 2, paged by 256, H100 SXM ([onnxruntime #21414]) | 64 of 256, 64 heads over 8 | 43.6 µs, 1.59 TB/s, 47 % |
| vLLM's `FLASH_ATTN`, 16 bits, a layer ([vllm #43232], GPU not named where this was read) | 1 of 1024; 1 of 4096 | 11.0; 14.5 µs |
| vLLM's `FLASHINFER`, likewise | 1 of 1024; 1 of 4096 | 10.8; 14.0 µs |
| vLLM's `FLASH_ATTN`, likewise | 8 of 1024; 8 of 4096 | 17.5; 41.6 µs |
| vLLM's `FLASHINFER`, likewise | 8 of 1024; 8 of 4096 | 16.3; 44.2 µs |

[flash-attention #1572]: https://github.com/Dao-AILab/flash-attention/issues/1572
[onnxruntime #21414]: https://github.com/microsoft/onnxruntime/pull/21414
[vllm #43232]: https://github.com/vllm-project/vllm/pull/43232
"""


def read(folder: pathlib.Path, name: str) -> dict:
    path = folder / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def table(rows) -> str:
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in rows)


def headed(columns: list[str], rows: list) -> str:
    return "\n".join([table([columns]), f"|{'---|' * len(columns)}", table(rows)])


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def median(spread: dict) -> float:
    return spread["median"]


def us(spread: dict) -> str:
    """With the spread where it is wide."""
    least, middle, most = (spread[key] * 1e6 for key in ("least", "median", "most"))
    text = f"{middle:.1f}"
    return text if most - least <= 0.05 * middle else f"{text} ({least:.1f} to {most:.1f})"


def times(spread: dict, other: dict) -> str:
    return f"{median(spread) / median(other):.2f}"


def machine_rows(results: dict, bench: dict, watch: dict) -> list:
    rows = list(results.get("facts", {}).items())
    if gpu := bench.get("gpu"):
        cuda = [f"{gpu[key] // 1000}.{gpu[key] % 1000 // 10}" for key in
                ("runtime_cuda", "driver_cuda")]  # fmt: skip
        rows += [
            ("Compute capability", f"{gpu['compute']}, {gpu['multiprocessors']} multiprocessors"),
            ("L2 cache", f"{gpu['l2_bytes'] / (1 << 20):.0f} MiB"),
            ("CUDA", f"{cuda[0]}, the driver's {cuda[1]}"),
        ]
    if watch:
        said = ", ".join(
            f"{watch[key]['median']:.0f} {unit} (at most {watch[key]['most']:.0f})"
            for key, unit in (("sm_mhz", "MHz"), ("watts", "W"), ("celsius", "°C"))
        )
        rows.append(("While busy", said))
    return rows


def verdict_rows(results: dict) -> list:
    words = {True: "ok", False: "**failed**", None: "not run"}
    return [
        (name, f"{words[verdict['ok']]}: {verdict['line']}")
        for name, verdict in results.get("verdicts", {}).items()
    ]


def roofs(bench: dict, torch: dict) -> str:
    found = bench["roofs"]
    other = torch.get("product", [{}])[0].get("flop_s")
    return ROOFS.format(
        read=found["read_bytes_s"] * 1e-9,
        copy=found["copy_bytes_s"] * 1e-9,
        blas=found["blas_flop_s"] * 1e-12,
        torch=f"| the same by `torch.mm` | {other * 1e-12:.0f} TFLOP/s |\n" if other else "",
    )


def product_row(p: dict, found: dict) -> list:
    seconds = median(p["seconds"])
    return [
        f"{p['name']} {p['n']} × {p['k']}",
        p["m"],
        us(p["seconds"]),
        us(p["cublas"]),
        f"{median(p['cublas']) / seconds:.2f}",
        f"{p['bytes'] / seconds * 1e-9:.0f}",
        percent(p["bytes"] / seconds / found["read_bytes_s"]),
        f"{p['flop'] / seconds * 1e-12:.1f}",
        percent(p["flop"] / seconds / found["blas_flop_s"]),
        times(p["deterministic"], p["seconds"]),
    ]


def decode_attention_row(a: dict) -> list:
    return [
        a["batch"],
        a["context"],
        us(a["seconds"]),
        f"{a['bytes'] / median(a['seconds']) * 1e-9:.0f}",
        percent(a["of_read"]),
        times(a["deterministic"], a["seconds"]),
    ]


def prefill_attention_row(a: dict) -> list:
    return [
        a["rows"],
        a["position"],
        us(a["seconds"]),
        f"{a['flop'] / median(a['seconds']) * 1e-12:.0f}",
        percent(a["of_blas"]),
        times(a["deterministic"], a["seconds"]),
    ]


def elementwise_row(e: dict) -> list:
    rate = e["bytes"] / median(e["seconds"]) * 1e-9
    return [e["name"], e["rows"], us(e["seconds"]), f"{rate:.0f}"]


def peers(torch: dict, part: str, key) -> dict:
    return {key(found): median(found["seconds"]) for found in torch.get(part, [])}


def ratio(other: float | None, ours: float) -> str:
    return "" if other is None else f"{other * 1e3:.2f} ({other / ours:.2f}×)"


def gaps(trace: dict, step: float) -> list[str]:
    idle = trace["idle"] * trace["traced_s"]
    added = max(trace["traced_s"] - step, 0)
    return [f"{100 * trace['idle']:.1f} %", f"**{100 * max(idle - added, 0) / step:.1f} %**"]


def decode(bench: dict, torch: dict) -> str:
    same = torch.get("layers") == bench["layers"]
    others = peers(torch, "decode", lambda d: (d["batch"], d["context"], d["compiled"]))
    others = others if same else {}
    traces = {(g["batch"], g["context"]): g for g in bench.get("gaps", [])}
    rows = []
    for d in bench["decode"]:
        step, graph = median(d["step"]), median(d["graph"])
        cells = [
            d["batch"],
            d["context"],
            f"**{step * 1e3:.3f}**",
            f"{d['batch'] / step:.0f}",
            f"{graph * 1e3:.3f}",
            f"{median(d['eager']) * 1e3:.3f}",
        ]
        if d["complete"]:
            cells += [
                f"{d['bound_s'] * 1e3:.3f}",
                f"**{step / d['bound_s']:.2f}**",
                f"{step / d['strict_bound_s']:.2f}",
                percent(1 - d["parts_alone_s"] / graph),
            ]
        else:
            cells += [""] * 4
        place = (d["batch"], d["context"])
        if traces:
            cells += gaps(traces[place], step) if place in traces else ["", ""]
        if others:
            cells += [ratio(others.get((*place, compiled)), step) for compiled in (False, True)]
        rows.append(cells)
    columns = ["sequences", "tokens each", "step, ms", "tokens/s", "pass, ms", "not recorded, ms"]
    columns += ["bound, ms", "step / bound", "step / strict", "beyond parts"]
    columns += ["traced", "gaps"] if traces else []
    columns += ["transformers, ms", "compiled, ms"] if others else []
    return DECODE.format(layers=bench["layers"], table=headed(columns, rows))


def prefill(bench: dict, torch: dict) -> str:
    same = torch.get("layers") == bench["layers"]
    others = peers(torch, "prefill", lambda p: p["rows"]) if same else {}
    rows = []
    for p in bench["prefill"]:
        seconds = median(p["seconds"])
        cells = [
            p["rows"],
            f"{seconds * 1e3:.2f}",
            f"{p['rows'] / seconds:.0f}",
            f"{p['flop'] / seconds * 1e-12:.0f}",
            f"**{percent(p['of_blas'])}**",
            percent(p["attention_alone_s"] / seconds) if p["attention_alone_s"] else "",
        ]
        rows.append(cells + ([ratio(others.get(p["rows"]), seconds)] if others else []))
    columns = ["tokens", "ms", "tokens/s", "TFLOP/s", "of 8192³", "attention's part"]
    columns += ["transformers, ms"] if others else []
    return PREFILL.format(table=headed(columns, rows))


def deterministic(bench: dict) -> str:
    rows = []
    fast = {(d["batch"], d["context"]): median(d["step"]) for d in bench.get("decode", [])}
    for d in bench.get("deterministic_decode", []):
        if before := fast.get((d["batch"], d["context"])):
            what = f"step of {d['batch']} × {d['context']}"
            rows.append((what, before, median(d["step"])))
    fast = {p["rows"]: median(p["seconds"]) for p in bench.get("prefill", [])}
    for p in bench.get("deterministic_prefill", []):
        if before := fast.get(p["rows"]):
            rows.append((f"prefill of {p['rows']}", before, median(p["seconds"])))
    cells = [(what, f"{a * 1e3:.3f}", f"{b * 1e3:.3f}", f"{b / a:.2f}") for what, a, b in rows]
    return DETERMINISTIC.format(rows=table(cells)) if cells else ""


def f16(bench: dict, other: dict) -> str:
    """What both measured."""
    places = {
        "products": lambda p: f"{p['name']}, {p['m']} rows",
        "decode_attention": lambda a: f"attention of {a['batch']} × {a['context']} tokens",
        "prefill_attention": lambda a: f"attention of {a['rows']} rows behind {a['position']}",
        "elementwise": lambda e: f"{e['name']}, {e['rows']} rows",
        "decode": lambda d: f"step of {d['batch']} × {d['context']} tokens",
        "prefill": lambda p: f"prefill of {p['rows']} tokens",
    }
    rows = []
    for part, place in places.items():
        took = "step" if part == "decode" else "seconds"
        in_f16 = {place(found): found[took] for found in other.get(part, [])}
        for found in bench.get(part, []):
            if ours := in_f16.get(place(found)):
                rows.append((place(found), us(found[took]), us(ours), times(ours, found[took])))
    return F16.format(rows=table(rows)) if rows else ""


def tokens(folder: pathlib.Path) -> str:
    found, reference = read(folder, "tokens"), read(folder / "tokens", "reference")
    if not found or not reference:
        return ""
    rows = []

    for name, key in {
        "Baton, fast": "fast",
        "Baton, deterministic": "deterministic",
        "Baton, fast, f16": "f16_fast",
        "Baton, deterministic, f16": "f16_deterministic",
        "Baton, CPU in float32": "cpu",
        "transformers in bfloat16": "peer_bf16",
    }.items():
        if key not in found:
            continue
        drawn, scored = found[key]["drawn"], found[key]["scored"]
        parted = len(drawn["cases"]) - drawn["equal"] - drawn["bad"]
        off = " / ".join(f"{scored[f'error_{of}']:.4f}" for of in ("median", "p99", "most"))
        row = [name, drawn["equal"], parted, drawn["bad"], scored["places"], scored["same"]]
        rows.append([*row, scored["bad"], off])
    columns = ["", "prompts equal", "parted within the bound", "beyond it", "places"]
    columns += ["same likeliest", "beyond it", "off by, median / p99 / most"]
    lengths = [len(p) for p in reference["prompts"]]
    return TOKENS.format(
        prompts=len(lengths),
        shortest=min(lengths),
        longest=max(lengths),
        drawn=len(reference["float32"][0]["tokens"]),
        transformers=reference["transformers"],
        bound=found["bound"],
        slack=found["slack"],
        table=headed(columns, rows),
    )


def torch_section(torch: dict) -> str:
    rows = []
    attention = torch.get("decode_attention", [{}])[0]
    backends = {"chosen by itself": attention.get("default", {})} | attention.get("backends", {})
    for name, found in backends.items():
        if "bytes_s" in found:
            rows.append((f"decode attention, {name}", f"{us(found['seconds'])} µs",
                         f"{found['bytes_s'] * 1e-9:.0f} GB/s"))  # fmt: skip
        elif found:
            rows.append((f"decode attention, {name}", "not offered", ""))
    for found in torch.get("prefill_attention", []):
        rows.append((f"causal attention of {found['rows']} rows", f"{us(found['seconds'])} µs",
                     f"{found['flop_s'] * 1e-12:.0f} TFLOP/s"))  # fmt: skip
    for found in torch.get("decode", []):
        kind = "compiled" if found["compiled"] else "eager"
        what = f"step of {found['batch']} × {found['context']}, {kind}"
        rows.append((what, f"{median(found['seconds']) * 1e3:.2f} ms", ""))
    for found in torch.get("prefill", []):
        rows.append((f"prefill of {found['rows']}", f"{median(found['seconds']) * 1e3:.2f} ms", ""))
    rows += [(what, "failed", why) for what, why in torch.get("failed", {}).items()]
    return TORCH.format(
        torch=torch["torch"],
        transformers=torch["transformers"],
        batch=attention.get("batch", "no"),
        context=attention.get("context", "no"),
        rows=table(rows),
    )


def markdown(folder: pathlib.Path) -> str:
    results, bench = read(folder, "results"), read(folder, "bench")
    torch, watch = read(folder, "torch"), read(folder, "watch")
    text = HEAD.format(
        command=results.get("command", "scripts/gpu_check"),
        commit=results.get("commit", "unknown"),
        machine=table(machine_rows(results, bench, watch)),
        verdicts=table(verdict_rows(results)),
    )
    if "roofs" in bench:
        text += roofs(bench, torch)
    if found := bench.get("products"):
        text += PRODUCTS.format(rows=table(product_row(p, bench["roofs"]) for p in found))
    if found := bench.get("decode_attention"):
        block = found[0]["block_tokens"]
        text += DECODE_ATTENTION.format(block=block, rows=table(map(decode_attention_row, found)))
    if found := bench.get("prefill_attention"):
        text += PREFILL_ATTENTION.format(rows=table(map(prefill_attention_row, found)))
    if found := bench.get("elementwise"):
        text += ELEMENTWISE.format(rows=table(map(elementwise_row, found)))
    if "decode" in bench:
        text += decode(bench, torch)
    if "prefill" in bench:
        text += prefill(bench, torch)
    text += deterministic(bench) + f16(bench, read(folder, "bench_f16")) + tokens(folder)
    return text + (torch_section(torch) if torch else "") + PUBLISHED


if __name__ == "__main__":
    print(markdown(pathlib.Path(sys.argv[1])), end="")
