#!/usr/bin/env python3
"""Writes the reference tokens and logits that tests/model compares Baton with.

    python3 -m venv .venv
    .venv/bin/pip install torch transformers tokenizers gguf safetensors numpy
    .venv/bin/python scripts/make_goldens.py --model SmolLM2-135M-Instruct.Q4_1.gguf
    .venv/bin/python scripts/make_goldens.py --tiny

Everything is computed by Hugging Face transformers in float32, from the same dequantized weights.
The results are stored in tests/model/data, so the tests need neither torch nor this script.
"""

import argparse
import json
import pathlib

import torch
import transformers

import golden_prompts
import golden_tiny
import golden_gguf

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "model" / "data"
TOP = 8


@torch.no_grad()
def greedy(model, prompt, count):
    """`count` greedy tokens after `prompt`, decoded one by one on a cache as a server does."""
    tokens, cache, ids = [], None, torch.tensor([prompt])
    for _ in range(count):
        out = model(ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        tokens.append(int(out.logits[0, -1].argmax()))
        ids = torch.tensor([tokens[-1:]])
    return tokens


@torch.no_grad()
def golden_case(model, name, prompt, count):
    """One case: what follows greedily, and the top logits at each position of all of it."""
    output = greedy(model, prompt, count)
    logits = model(torch.tensor([prompt + output])).logits[0].float()
    top = logits.topk(TOP, dim=-1)
    return {
        "name": name,
        "prompt": prompt,
        "output": output,
        # [positions][TOP], descending; row p scores the token at position p + 1
        "top_ids": top.indices.tolist(),
        "top_logits": [[round(v, 5) for v in row] for row in top.values.tolist()],
    }


def write(path, cases):
    goldens = {
        "made_by": "scripts/make_goldens.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "cases": cases,
    }
    path.write_text(json.dumps(goldens, separators=(",", ":"), ensure_ascii=False) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")


def make_quick_start(path, count):
    model, tokenizer = golden_gguf.load(path)
    cases = []
    for name, text in golden_prompts.prompts(tokenizer):
        ids = tokenizer.encode(text, add_special_tokens=False)
        case = golden_case(model, name, ids, count)
        case["text"] = text
        cases.append(case)
        print(f"{name}: {len(ids)} tokens -> {tokenizer.decode(case['output'])[:70]!r}")
    write(DATA / "smollm2_135m_instruct.json", cases)


def make_tiny():
    for name, model in golden_tiny.models():
        folder = DATA / name
        golden_tiny.save(model, folder)
        generator = torch.Generator().manual_seed(7)
        cases = []
        for length in (1, 7, 40, 290):  # the last is longer than an attention tile
            prompt = torch.randint(0, model.config.vocab_size, (length,), generator=generator)
            cases.append(golden_case(model, f"{length} tokens", prompt.tolist(), 24))
        write(folder / "goldens.json", cases)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{folder}: {size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, help="the quick-start GGUF file")
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens a prompt")
    parser.add_argument("--tiny", action="store_true", help="make the tiny models, too")
    args = parser.parse_args()
    if args.tiny:
        make_tiny()
    if args.model:
        make_quick_start(args.model, args.tokens)


if __name__ == "__main__":
    main()
