"""A small model with random weights, what transformers draws from it, and how Baton compares.
Making it needs torch and transformers; comparing needs neither."""

import argparse
import json
import math
import pathlib
import subprocess
import sys

TOKENS = dict(
    vocab_size=2048,
    hidden_size=1024,
    intermediate_size=2816,
    num_hidden_layers=4,
    num_attention_heads=16,
    num_key_value_heads=4,
    max_position_embeddings=4096,
    rms_norm_eps=1e-5,
    bos_token_id=256,
    eos_token_id=257,
    tie_word_embeddings=False,
)
LENGTHS = [1, 7, 16, 33, 100, 255, 256, 257, 600, 1000]
DRAWN = 48
TOP = 8
# Times the error of transformers in bfloat16 that ours may have.
SLACK = 1.5


def minimal_tokenizer(vocab_size: int) -> dict:
    """Byte-level BPE without merges: id b is byte b, what is above is special."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in printable}
    rest = [b for b in range(256) if b not in letters]
    letters |= {b: chr(256 + i) for i, b in enumerate(rest)}
    special = [(256, "<|begin|>"), (257, "<|end|>")]
    special += [(i, f"<|{i}|>") for i in range(258, vocab_size)]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, text in special
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {letters[b]: b for b in range(256)} | {text: i for i, text in special},
            "merges": [],
        },
    }


def random_model(torch, transformers):
    """Wide enough weights that attention is peaked and greedy tokens vary."""
    torch.manual_seed(5)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TOKENS)).float().eval()
    for name, p in model.named_parameters():
        if "norm" in name:
            value = 1 + 0.2 * torch.randn_like(p)
        else:
            value = torch.randn_like(p) * (1.0 if "embed" in name else 1.7 * p.shape[-1] ** -0.5)
        p.data.copy_(value.bfloat16().float())
    return model


def draw(torch, model, prompt: list[int]) -> list[int]:
    """Greedy tokens after the prompt."""
    drawn, cache = [], None
    ids = torch.tensor([prompt], device=model.device)
    for _ in range(DRAWN):
        out = model(ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        ids = out.logits[:, -1].argmax(-1, keepdim=True)
        drawn.append(int(ids))
    return drawn


def score(torch, model, text: list[int]) -> dict:
    """At each place of a text, the likeliest tokens behind it and their log-probabilities."""
    logits = model(torch.tensor([text], device=model.device)).logits[0]
    top = logits.float().log_softmax(-1).topk(TOP, dim=-1)
    return {
        "top": top.indices.tolist(),  # [place][TOP]
        "logprobs": [[round(v, 5) for v in row] for row in top.values.tolist()],
    }


def tokens(options: argparse.Namespace) -> None:
    import torch
    import transformers

    folder = options.out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    random_model(torch, transformers).to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(minimal_tokenizer(TOKENS["vocab_size"])))
    generator = torch.Generator().manual_seed(6)
    prompts = [
        torch.randint(0, TOKENS["vocab_size"], (n,), generator=generator).tolist() for n in LENGTHS
    ]
    found = {"prompts": prompts, "torch": torch.__version__, "device": options.device}
    found["transformers"] = transformers.__version__
    # The products of float32 must not be TF32's.
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.inference_mode():
        for dtype in ("float32", "bfloat16"):
            # Loaded anew: casting a model would round its rotary frequencies as well.
            model = transformers.LlamaForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation="eager"
            ).to(options.device)
            drawn = [draw(torch, model, prompt) for prompt in prompts]
            if dtype == "float32":
                texts = [prompt + tokens for prompt, tokens in zip(prompts, drawn)]
            scores = [score(torch, model, text) for text in texts]
            found[dtype] = [{"tokens": t} | s for t, s in zip(drawn, scores)]
    (options.out / "reference.json").write_text(json.dumps(found))
    write_lines(options.out / "prompts.txt", prompts)
    write_lines(options.out / "scored.txt", texts)


def write_lines(path: pathlib.Path, prompts: list[list[int]]) -> None:
    path.write_text("".join(" ".join(map(str, p)) + "\n" for p in prompts))


def run_generate(options: argparse.Namespace, name: str, *more: str) -> dict:
    result = options.dir / f"{name}.json"
    command = [str(options.generate.resolve()), "--model", str(options.dir / "model"), "--device",
               options.device, "--logits", "--json", str(result), *more]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def gap_of(expected: dict, place: int, token: int) -> float:
    """By how much the reference prefers its own token there; it knows the likeliest alone."""
    top = expected["top"][place]
    if token not in top:
        return math.inf
    return expected["logprobs"][place][0] - expected["logprobs"][place][top.index(token)]


def compare_drawn(reference: dict, drawn: list[list[int]], bound: float) -> dict:
    """Where the tokens part, if they do, and how close the reference's choice was there: behind
    that the texts are not the same."""
    cases = []
    for prompt, expected, ours in zip(reference["prompts"], reference["float32"], drawn):
        case = {"prompt_tokens": len(prompt), "place": None, "gap": 0}
        for place, (a, b) in enumerate(zip(ours, expected["tokens"], strict=True)):
            if a != b:
                case |= {"place": place, "gap": gap_of(expected, len(prompt) - 1 + place, a)}
                break
        cases.append(case)
    return {
        "cases": cases,
        "equal": sum(case["place"] is None for case in cases),
        "bad": sum(case["gap"] > bound for case in cases),
    }


def compare_scored(reference: dict, tops: list[list[list]], bound: float) -> dict:
    """The same texts, place by place: how often the likeliest token is the reference's, how often
    it is one that the reference likes less by more than the bound, and how far the log-probability
    of the reference's likeliest is off. `tops`: [text][place] of (token, log-probability)."""
    places = same = bad = 0
    errors = []
    for expected, texts in zip(reference["float32"], tops, strict=True):
        for place, top in enumerate(texts):
            best = expected["top"][place][0]
            places += 1
            same += top[0][0] == best
            bad += gap_of(expected, place, top[0][0]) > bound
            if best in (ours := dict(top)):
                errors.append(abs(ours[best] - expected["logprobs"][place][0]))
    errors.sort()
    return {
        "places": places,
        "same": same,
        "bad": bad,
        "error_median": errors[len(errors) // 2],
        "error_p99": errors[len(errors) * 99 // 100],
        "error_most": errors[-1],
    }


def compare(options: argparse.Namespace) -> None:
    reference = json.loads((options.dir / "reference.json").read_text())
    prompts, scored = str(options.dir / "prompts.txt"), str(options.dir / "scored.txt")
    draw_all = ["--prompt-ids", prompts, "--max-tokens", str(DRAWN)]
    score_all = ["--prompt-ids", scored, "--score"]
    f16 = ["--dtype", "f16"]
    kinds = {"fast": [], "deterministic": ["--deterministic"], "f16_fast": f16,
             "f16_deterministic": [*f16, "--deterministic"]}  # fmt: skip
    if options.device == "cpu":
        kinds = {"cpu": ["--dtype", "f32"]}
    found = {"bound": options.bound, "slack": SLACK, "peer_bf16": peer(reference, options.bound)}
    oks = []
    for name, flags in kinds.items():
        together = run_generate(options, f"{name}_drawn", *draw_all, *flags)
        scores = run_generate(options, f"{name}_scored", *score_all, *flags)
        tops = [[result["top"] for result in p["results"]] for p in scores["prompts"]]
        drawn = compare_drawn(reference, tokens_of(together), options.bound)
        score = compare_scored(reference, tops, options.bound)
        found[name] = {"numerics": together["numerics"], "drawn": drawn, "scored": score}
        theirs = found["peer_bf16"]["scored"]
        ok = drawn["bad"] + score["bad"] == 0
        ok &= all(score[key] <= SLACK * theirs[key] for key in ("error_median", "error_p99"))
        if not name.endswith("fast"):
            chunked = run_generate(options, f"{name}_chunked", *draw_all, "--chunk", "37", *flags)
            found[name]["same_when_chunked"] = tokens_of(chunked) == tokens_of(together)
            ok &= found[name]["same_when_chunked"]
        oks.append(ok)
        print(
            f"{name}: {drawn['equal']} of {len(drawn['cases'])} prompts equal in {DRAWN} tokens, "
            f"{drawn['bad']} part beyond the bound of {options.bound}; of {score['places']} places "
            f"{score['same']} have the same likeliest token, {score['bad']} differ beyond the "
            f"bound; log-probabilities off by {score['error_median']:.4f} (median), "
            f"{score['error_p99']:.4f} (p99)"
            + ("" if found[name].get("same_when_chunked", True) else "; CHUNKS SHOW")
        )
    found["ok"] = all(oks)
    options.json.write_text(json.dumps(found, indent=1))
    sys.exit(0 if found["ok"] else 1)


def tokens_of(found: dict) -> list[list[int]]:
    return [[r["token"] for r in p["results"]] for p in found["prompts"]]


def peer(reference: dict, bound: float) -> dict:
    """transformers in bfloat16 against itself in float32: what the bounds are to be seen by."""
    theirs = reference["bfloat16"]
    tops = [[list(zip(*place)) for place in zip(c["top"], c["logprobs"])] for c in theirs]
    return {
        "drawn": compare_drawn(reference, [c["tokens"] for c in theirs], bound),
        "scored": compare_scored(reference, tops, bound),
    }
