"""Model files as bad disks, broken downloads and bad intentions make them."""

import json
import pathlib
import re
import shutil
import struct

import tiny_model


def gguf_tensor(data: bytes, name: str) -> dict[str, int]:
    """Where a tensor's description stands: offsets of its fields in the file."""
    text = name.encode()
    key = struct.pack("<Q", len(text)) + text
    dims = data.index(key) + len(key)
    count = struct.unpack_from("<I", data, dims)[0]
    return {"dims": dims, "shape": dims + 4, "type": dims + 4 + 8 * count,
            "offset": dims + 8 + 8 * count}  # fmt: skip


def patch(path: pathlib.Path, at: int, layout: str, value) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, at, value)
    path.write_bytes(data)


def patch_tensor(path: pathlib.Path, name: str, field: str, layout: str, value) -> None:
    patch(path, gguf_tensor(path.read_bytes(), name)[field], layout, value)


def replace_in(path: pathlib.Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert len(old) == len(new) and old in data
    path.write_bytes(data.replace(old, new, 1))


def keep(path: pathlib.Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


# Each: what is done to a good file, and what the sentence must name besides the file.
GGUF = {
    "empty": (lambda p: p.write_bytes(b""), ""),
    "not a model": (lambda p: p.write_bytes(b"#!/bin/sh\necho hello\n" * 100), ""),
    "cut in the header": (lambda p: p.write_bytes(p.read_bytes()[:20]), ""),
    "cut in the tensor list": (lambda p: keep(p, 0.02), ""),
    "cut in the data": (lambda p: keep(p, 0.7), r"blk\.|output|token_embd"),
    "one byte short": (lambda p: p.write_bytes(p.read_bytes()[:-64]), r"\w"),
    "version 99": (lambda p: patch(p, 4, "<I", 99), "99"),
    "huge tensor count": (lambda p: patch(p, 8, "<Q", 1 << 60), ""),
    "huge key count": (lambda p: patch(p, 16, "<Q", 1 << 60), ""),
    "endless string": (lambda p: patch(p, 24, "<Q", 1 << 62), ""),
    "unknown architecture": (lambda p: replace_in(p, b"\x05\0\0\0\0\0\0\0llama",
                                                  b"\x05\0\0\0\0\0\0\0llamb"), "llamb"),
    "unknown type": (lambda p: patch_tensor(p, "output.weight", "type", "<I", 999), "output"),
    "unsupported type": (
        lambda p: patch_tensor(p, "blk.0.attn_q.weight", "type", "<I", 16), r"attn_q"),
    "data beyond the end": (
        lambda p: patch_tensor(p, "output.weight", "offset", "<Q", 1 << 40), "output"),
    "data wraps around": (
        lambda p: patch_tensor(p, "output.weight", "offset", "<Q", (1 << 64) - 32), "output"),
    "unaligned data": (
        lambda p: patch_tensor(p, "output.weight", "offset", "<Q", 3), "output"),
    "shape overflows": (
        lambda p: patch_tensor(p, "output.weight", "shape", "<Q", 1 << 62), "output"),
    "shape of zero": (lambda p: patch_tensor(p, "output.weight", "shape", "<Q", 0), "output"),
    "wrong shape": (
        lambda p: patch_tensor(p, "blk.1.ffn_up.weight", "shape", "<Q", 32), "ffn_up"),
    "a thousand dimensions": (
        lambda p: patch_tensor(p, "output.weight", "dims", "<I", 1000), "output"),
    "tensor missing": (lambda p: tiny_model.write_tiny_gguf(
        p, leave_out=["blk.1.ffn_down.weight"]), "ffn_down|down_proj"),
    "tensor twice": (lambda p: replace_in(p, b"blk.1.attn_q.weight", b"blk.0.attn_q.weight"),
                     "attn_q"),
}  # fmt: skip


def edit_config(**changes):
    def change(folder: pathlib.Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return change


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def edit_header(change):
    """Rewrites the JSON header of model.safetensors in its old length, padded."""

    def edit(folder: pathlib.Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header, separators=(",", ":")).encode()
        assert len(text) <= length
        path.write_bytes(data[:8] + text.ljust(length) + data[8 + length :])

    return edit


def set_tensor(name: str, **changes):
    return edit_header(lambda header: header[name].update(changes))


Q = "model.layers.0.self_attn.q_proj.weight"
HF = {
    "empty folder": (lambda p: [f.unlink() for f in p.iterdir()], ""),
    "no config": (remove("config.json"), "config.json"),
    "config is no json": (write("config.json", b"{oops"), "config.json"),
    "config is an array": (write("config.json", b"[]"), "config.json"),
    "architecture unknown": (
        edit_config(architectures=["BertModel"], model_type="bert"), "(?i)bert"),
    "no hidden size": (edit_config(hidden_size=None), "hidden_size"),
    "negative heads": (edit_config(num_attention_heads=-4), "num_attention_heads"),
    "no layers": (edit_config(num_hidden_layers=0), "num_hidden_layers"),
    "heads do not divide": (edit_config(num_key_value_heads=3), "num_key_value_heads|heads"),
    "endless layers": (edit_config(num_hidden_layers=10**9), "num_hidden_layers"),
    "more layers than there are": (edit_config(num_hidden_layers=3), r"layers\.2|layers"),
    "vocabulary differs": (edit_config(vocab_size=100), "embed_tokens|vocab|lm_head"),
    "no weights": (remove("model.safetensors"), "safetensors"),
    "weights cut": (lambda p: keep(p / "model.safetensors", 0.5), "safetensors"),
    "header too long": (lambda p: patch(p / "model.safetensors", 0, "<Q", 1 << 50), "safetensors"),
    "header is no json": (
        lambda p: patch(p / "model.safetensors", 8, "<B", 0x58), "model.safetensors"),
    "dtype unknown": (set_tensor(Q, dtype="X9"), "q_proj"),
    "shape and bytes differ": (set_tensor(Q, shape=[64, 32]), "q_proj"),
    "offsets swapped": (set_tensor(Q, data_offsets=[9000, 100]), "q_proj"),
    "offsets beyond the end": (set_tensor(Q, data_offsets=[0, 1 << 40]), "q_proj"),
    "wrong shape": (set_tensor(Q, shape=[32, 128]), "q_proj"),
    "tensor missing": (
        lambda p: replace_in(p / "model.safetensors", b"0.self_attn.q_proj", b"0.self_attn.x_proj"),
        "q_proj",
    ),
    "bytes of no tensor": (edit_header(lambda header: header.pop(Q)), "model.safetensors"),
    "no tokenizer": (remove("tokenizer.json"), "tokenizer"),
    "tokenizer is no json": (write("tokenizer.json", b"\xff\xfe{"), "tokenizer"),
    "tokenizer of a kind unknown": (
        write("tokenizer.json", b'{"model": {"type": "Magic", "vocab": {}}}'), "Magic|tokenizer"),
    "template does not parse": (
        write("tokenizer_config.json", b'{"chat_template": "{% for %}"}'), "template"),
}  # fmt: skip


def make_gguf(name: str, good: pathlib.Path, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    change, names = GGUF[name]
    path = folder / "broken.gguf"
    shutil.copy(good, path)
    change(path)
    return path, names


def make_hf(name: str, good: pathlib.Path, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    change, names = HF[name]
    path = folder / "broken"
    shutil.copytree(good, path)
    change(path)
    return path, names


def names_match(pattern: str, said: str) -> bool:
    return re.search(pattern, said) is not None
