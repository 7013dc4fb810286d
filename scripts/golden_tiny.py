"""Tiny random models of each family, small enough to keep in the tree. For make_goldens.py."""

import json

import torch
import transformers
from safetensors.torch import save_file

COMMON = dict(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    bos_token_id=256,
    eos_token_id=257,
    attention_dropout=0.0,
)


def rope(theta, **scaling):
    return {"rope_type": "default", "rope_theta": theta, **scaling}


def build(cls, config, dtype, seed):
    torch.manual_seed(seed)
    model = cls(config).float().eval()
    for name, p in model.named_parameters():
        # Wide enough that attention is peaked and greedy tokens vary.
        std = 1.0 if "embed" in name else 0.35
        value = 1 + 0.2 * torch.randn_like(p) if "norm" in name else std * torch.randn_like(p)
        p.data.copy_(value.to(dtype).float())
    model.tie_weights()
    model.stored_dtype = dtype
    return model


def models():
    """(folder name, model) pairs."""
    llama3 = rope(
        10000.0,
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )
    bf16, f32 = torch.bfloat16, torch.float32
    t = transformers
    yield (
        "llama3",
        build(
            t.LlamaForCausalLM,
            t.LlamaConfig(**COMMON, rope_parameters=llama3, tie_word_embeddings=False),
            bf16,
            1,
        ),
    )
    mha = COMMON | dict(hidden_size=48, num_attention_heads=3, num_key_value_heads=3)
    yield (
        "llama_mha",
        build(
            t.LlamaForCausalLM,
            t.LlamaConfig(
                **mha,
                rope_parameters=rope(10000.0, rope_type="linear", factor=4.0),
                tie_word_embeddings=True,
            ),
            f32,
            2,
        ),
    )
    yield (
        "mistral",
        build(
            t.MistralForCausalLM,
            t.MistralConfig(
                **COMMON,
                head_dim=32,
                sliding_window=None,
                rope_parameters=rope(1000000.0),
                tie_word_embeddings=False,
            ),
            bf16,
            3,
        ),
    )
    yield (
        "qwen2",
        build(
            t.Qwen2ForCausalLM,
            t.Qwen2Config(**COMMON, rope_parameters=rope(1000000.0), tie_word_embeddings=True),
            bf16,
            4,
        ),
    )
    yield (
        "qwen3",
        build(
            t.Qwen3ForCausalLM,
            t.Qwen3Config(
                **COMMON, head_dim=32, rope_parameters=rope(1000000.0), tie_word_embeddings=False
            ),
            bf16,
            5,
        ),
    )


def save(model, folder):
    """config.json and model.safetensors, as the Hub keeps them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    config["dtype"] = str(model.stored_dtype).removeprefix("torch.")
    config["architectures"] = [type(model).__name__]
    if config["model_type"] in ("llama", "qwen2"):
        # As transformers before version 5 wrote it, and most models on the Hub have it.
        scaling = config.pop("rope_parameters")
        config["rope_theta"] = scaling.pop("rope_theta")
        config["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    tied = model.config.tie_word_embeddings
    weights = {
        name: p.data.to(model.stored_dtype).contiguous()
        for name, p in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
