#!/usr/bin/env python3
"""Writes tests/formats/data/dequantize.txt: blocks of every storage type and what the public
package `gguf` (pip install gguf numpy) reads out of them. Each line: type, hex of the stored bytes,
hex of the little-endian f32."""

import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

TYPES = [T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q4_K, T.Q5_K, T.Q6_K]
# Bytes at which a block has an f16 scale.
SCALES = {
    T.Q8_0: [0],
    T.Q4_0: [0],
    T.Q4_1: [0, 2],
    T.Q5_0: [0],
    T.Q5_1: [0, 2],
    T.Q4_K: [0, 2],
    T.Q5_K: [0, 2],
    T.Q6_K: [208],
}
BLOCKS = 3


def random_blocks(rng, kind):
    size = GGML_QUANT_SIZES[kind][1]
    data = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in SCALES.get(kind, []):
        scales = (rng.standard_normal(BLOCKS) * 0.02).astype(np.float16)
        scales[-1] = np.float16(2.0**-24 * 37)  # a subnormal
        data[:, at : at + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    return data


def plain(rng, kind):
    values = (rng.standard_normal(16) * 3).astype(np.float32)
    values[:4] = [0.0, -0.0, 2.0**-24, 65504.0]
    if kind == T.F16:
        return values.astype(np.float16).view(np.uint8)
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)


def main():
    rng = np.random.default_rng(7)
    lines = []
    for kind in TYPES:
        data = random_blocks(rng, kind) if kind in SCALES else plain(rng, kind)
        values = dequantize(data.reshape(1, -1), kind).astype("<f4")
        lines.append(f"{kind.name} {data.tobytes().hex()} {values.tobytes().hex()}")
    out = pathlib.Path(__file__).parent.parent / "tests/formats/data/dequantize.txt"
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
