"""Writes a small random Llama-family model in Hugging Face form. The same arguments always give
the same bytes."""

import dataclasses
import json
import pathlib
import sys

import gguf
import numpy as np
import tokenizers

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "A relay team passes the baton from hand to hand and never lets it fall.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n",
    "Ünïcödé, 日本語 and 😀 emoji; numbers 0123456789, 3.14159 and 1e9.",
    "The quick brown fox jumps over the lazy dog while the band plays on and on.",
    "system user assistant system user assistant answer question prompt token",
]


@dataclasses.dataclass(frozen=True)
class Shape:
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 128
    vocab: int = 512
    context: int = 4096
    seed: int = 1

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def write_tiny_model(folder: pathlib.Path, shape: Shape = Shape()) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config(shape))
    _write_tokenizer(folder, shape)
    write_safetensors(folder / "model.safetensors", _weights(shape))
    return folder


def _config(shape: Shape) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def _write_tokenizer(folder: pathlib.Path, shape: Shape) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=shape.vocab,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # Every id has a token, whatever the corpus gave.
    filler = [f"<|unused_{i}|>" for i in range(shape.vocab - tokenizer.get_vocab_size())]
    tokenizer.add_tokens(filler)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|endoftext|>",
            "eos_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.context,
        },
    )


def _weights(shape: Shape) -> dict[str, np.ndarray]:
    random = np.random.default_rng(shape.seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        scale = gain / np.sqrt(columns)
        return (random.standard_normal((rows, columns)) * scale).astype(np.float32)

    def norm() -> np.ndarray:
        return (1 + 0.1 * random.standard_normal(shape.hidden)).astype(np.float32)

    q_rows = shape.heads * shape.head_dim
    kv_rows = shape.kv_heads * shape.head_dim
    weights = {"model.embed_tokens.weight": matrix(shape.vocab, shape.hidden, gain=4.0)}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        weights |= {
            prefix + "input_layernorm.weight": norm(),
            prefix + "self_attn.q_proj.weight": matrix(q_rows, shape.hidden, gain=2.0),
            prefix + "self_attn.k_proj.weight": matrix(kv_rows, shape.hidden, gain=2.0),
            prefix + "self_attn.v_proj.weight": matrix(kv_rows, shape.hidden, gain=2.0),
            prefix + "self_attn.o_proj.weight": matrix(shape.hidden, q_rows),
            prefix + "post_attention_layernorm.weight": norm(),
            prefix + "mlp.gate_proj.weight": matrix(shape.ffn, shape.hidden),
            prefix + "mlp.up_proj.weight": matrix(shape.ffn, shape.hidden),
            prefix + "mlp.down_proj.weight": matrix(shape.hidden, shape.ffn),
        }
    weights["model.norm.weight"] = norm()
    weights["lm_head.weight"] = matrix(shape.vocab, shape.hidden, gain=2.0)
    return weights


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Bits of the nearest bfloat16, ties to even, as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    header, parts, offset = {}, [], 0
    for name, values in tensors.items():
        data = to_bf16(values).tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def write_tiny_gguf(path: pathlib.Path, shape: Shape = Shape(), leave_out=()) -> pathlib.Path:
    """The same kind of model as one GGUF file; its tokens are the single bytes."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocab)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    plain = [*SPECIAL_TOKENS, *alphabet, "ba", "to"]
    tokens = plain + [f"<|unused_{i}|>" for i in range(shape.vocab - len(plain))]
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token.startswith("<|") else normal for token in tokens])
    writer.add_token_merges(["b a", "t o"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, values in _weights(shape).items():
        if (short := _gguf_name(name)) not in leave_out:
            writer.add_tensor(short, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for long, short in names.items():
        name = name.replace(long, short)
    return name


def _write_json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1))


if __name__ == "__main__":
    write_tiny_model(pathlib.Path(sys.argv[1]))
