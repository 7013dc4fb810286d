#!/usr/bin/env python3
"""PyTorch and transformers on the same GPU, for Baton to stand beside; and the reference that its
tokens are compared with.

    torch_peer.py speed --json OUT [--compile] [--quick]
    torch_peer.py tokens --out DIR [--device cuda|cpu]
    torch_peer.py compare --dir DIR --generate PROGRAM --device cuda --json OUT

Needs torch and transformers; `compare` needs neither.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import token_check

# Llama-3-8B.
SHAPE = dict(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
)
SQUARE = 8192
STEPS = 32  # tokens drawn on one cache before it is set back
DEVICE = "cuda"


class Clock:
    """Medians of CUDA events around calls that are repeated until they fill some milliseconds."""

    def __init__(self, torch, repeats: int):
        self.torch, self.repeats = torch, repeats

    def once(self, call, count: int) -> float:
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for i in range(count):
            call(i)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / count

    def __call__(self, call, fill=0.02, most=50, before=lambda: None) -> dict[str, float]:
        """`before` is called, untimed, ahead of at most `most` calls."""
        before()
        for i in range(3):
            call(i)
        before()
        count = max(2, min(most, int(fill / max(self.once(call, 2), 1e-7))))
        seconds = []
        for _ in range(self.repeats):
            before()
            seconds.append(self.once(call, count))
        return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def measure_product(torch, clock: Clock) -> dict:
    a, b = (torch.randn(SQUARE, SQUARE, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    seconds = clock(lambda _: torch.mm(a, b))
    return {"seconds": seconds, "flop_s": 2 * SQUARE**3 / seconds["median"]}


def measure_decode_attention(torch, clock: Clock, batch: int, context: int) -> dict:
    """One query a sequence over dense K and V, heads in groups of four."""
    heads, kv_heads, width, copies = 32, 8, 128, 2
    q = torch.randn(batch, heads, 1, width, device=DEVICE, dtype=torch.bfloat16)
    kv = [
        torch.randn(2, batch, kv_heads, context, width, device=DEVICE, dtype=torch.bfloat16)
        for _ in range(copies)
    ]
    attend = torch.nn.functional.scaled_dot_product_attention
    bytes_moved = 2 * batch * kv_heads * context * width * 2
    found = {"batch": batch, "context": context, "bytes": bytes_moved, "backends": {}}
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
        backend = getattr(SDPBackend, name, None)
        if backend is None:
            continue
        try:
            with sdpa_kernel(backend):
                seconds = clock(lambda i: attend(q, *kv[i % copies], enable_gqa=True))
        except RuntimeError as error:  # it does not offer this shape
            found["backends"][name] = {"refused": str(error).splitlines()[0][:200]}
            continue
        found["backends"][name] = {"seconds": seconds, "bytes_s": bytes_moved / seconds["median"]}
    seconds = clock(lambda i: attend(q, *kv[i % copies], enable_gqa=True))
    found["default"] = {"seconds": seconds, "bytes_s": bytes_moved / seconds["median"]}
    return found


def measure_prefill_attention(torch, clock: Clock, rows: int) -> dict:
    q = torch.randn(1, 32, rows, 128, device=DEVICE, dtype=torch.bfloat16)
    k, v = (torch.randn(1, 8, rows, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    attend = torch.nn.functional.scaled_dot_product_attention
    seconds = clock(lambda _: attend(q, k, v, is_causal=True, enable_gqa=True))
    flop = 4 * 32 * 128 * rows * (rows + 1) / 2
    return {"rows": rows, "seconds": seconds, "flop_s": flop / seconds["median"]}


def make_model(torch, transformers, layers: int):
    config = transformers.LlamaConfig(**SHAPE | {"num_hidden_layers": layers})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = transformers.LlamaForCausalLM(config)  # its attention is SDPA by itself
        model = model.to_empty(device=DEVICE)
    finally:
        torch.set_default_dtype(before)
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data.fill_(1)
        else:
            p.data.normal_(0, p.shape[-1] ** -0.5)
    # Its frequencies are no parameter: made anew, since those of the meta device are nothing.
    rotary = type(model.model.rotary_emb)(config).to(DEVICE)
    model.model.rotary_emb = rotary
    return model.eval()


def measure_decode(torch, transformers, model, clock: Clock, batch: int, context: int, compiled):
    """Seconds of a step at a static cache that holds `context` tokens of each sequence."""
    cache = transformers.StaticCache(config=model.config, max_cache_len=context + STEPS)
    ids = torch.randint(0, SHAPE["vocab_size"], (batch, context), device=DEVICE)
    chunk = max(1, 16384 // batch)  # the prompt's activations are not what is measured
    for begin in range(0, context, chunk):
        part = ids[:, begin : begin + chunk]
        model(part, past_key_values=cache, use_cache=True, logits_to_keep=1)
    step = torch.compile(model, mode="reduce-overhead") if compiled else model
    token = torch.randint(0, SHAPE["vocab_size"], (batch, 1), device=DEVICE)

    def back():
        for layer in cache.layers:
            layer.cumulative_length.fill_(context)

    def call(_):
        out = step(token, past_key_values=cache, use_cache=True)
        token.copy_(out.logits[:, -1].argmax(-1, keepdim=True))

    seconds = clock(call, fill=0.2, most=STEPS, before=back)
    return {"batch": batch, "context": context, "compiled": compiled, "seconds": seconds}


def measure_prefill(torch, model, clock: Clock, rows: int) -> dict:
    ids = torch.randint(0, SHAPE["vocab_size"], (1, rows), device=DEVICE)
    seconds = clock(lambda _: model(ids, use_cache=True, logits_to_keep=1), fill=0.2)
    return {"rows": rows, "seconds": seconds}


def speed(options: argparse.Namespace) -> None:
    import torch
    import transformers

    if not torch.cuda.is_available():
        sys.exit("torch_peer: torch sees no GPU here")
    clock = Clock(torch, 3 if options.quick else 5)
    found = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gpu": torch.cuda.get_device_name(),
        "layers": 8 if options.quick else SHAPE["num_hidden_layers"],
        "failed": {},
    }

    def note(name: str, measure, *arguments) -> None:
        """Each on its own: what this version of a library cannot do leaves the rest."""
        begin = time.monotonic()
        try:
            with torch.inference_mode():
                found.setdefault(name, []).append(measure(*arguments))
        except Exception as error:
            found["failed"][f"{name} {arguments[-3:]}"] = f"{type(error).__name__}: {error}"[:400]
        torch.cuda.empty_cache()
        print(f"torch_peer: {name} {time.monotonic() - begin:.1f} s", file=sys.stderr)
        options.json.write_text(json.dumps(found, indent=1))

    note("product", measure_product, torch, clock)
    note("decode_attention", measure_decode_attention, torch, clock, 64, 4096)
    for rows in (2048, 8192):
        note("prefill_attention", measure_prefill_attention, torch, clock, rows)
    model = make_model(torch, transformers, found["layers"])
    found["weight_bytes"] = sum(p.numel() * p.element_size() for p in model.parameters())
    for rows in (2048, 8192):
        note("prefill", measure_prefill, torch, model, clock, rows)
    for batch in (1, 8, 64):
        note("decode", measure_decode, torch, transformers, model, clock, batch, 1024, False)
    if options.compile:
        for batch in (1, 8):
            note("decode", measure_decode, torch, transformers, model, clock, batch, 1024, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speed")
    one.add_argument("--json", type=pathlib.Path, required=True)
    one.add_argument("--compile", action="store_true", help="torch.compile, too: takes minutes")
    one.add_argument("--quick", action="store_true", help="8 layers, fewer repeats")
    one.set_defaults(run=speed)
    one = commands.add_parser("tokens")
    one.add_argument("--out", type=pathlib.Path, required=True)
    one.add_argument("--device", default="cuda")
    one.set_defaults(run=token_check.tokens)
    one = commands.add_parser("compare")
    one.add_argument("--dir", type=pathlib.Path, required=True, help="what `tokens` made")
    one.add_argument("--generate", type=pathlib.Path, required=True)
    one.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    one.add_argument(
        "--bound", type=float, default=0.3, help="of the gap between two log-probabilities"
    )
    one.add_argument("--json", type=pathlib.Path, required=True)
    one.set_defaults(run=token_check.compare)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
