"""Blocks of each GGUF format and their values according to gguf-py: goldens/gguf_blocks.safetensors.

Codes and scales are random; the first blocks of each format have scales at the edges of f16 (zeros of both signs,
subnormal, largest, infinite, NaN), with codes that are all zeros or all ones.
"""

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.numpy import save_file

from pathlib import Path

# The offsets of the f16 values in each block.
SCALES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ4_NL: [0],
}
# 0, -0, the smallest and the largest subnormal, the smallest normal, the largest, -1, infinities, NaN.
EDGES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xBC00, 0x7C00, 0xFC00, 0x7E00]


def blocks_of(kind, random):
    bytes_each = GGML_QUANT_SIZES[kind][1]
    small = bytes_each < 40
    rows = []
    for edge in EDGES if small else EDGES[:6]:
        for fill in (0x00, 0xFF, None) if small else (None,):
            block = random.integers(0, 256, bytes_each, dtype=np.uint8) if fill is None else np.full(bytes_each, fill, np.uint8)
            for place in SCALES[kind]:
                block[place : place + 2] = np.array([edge], "<u2").view(np.uint8)
            rows.append(block)
    for fill in (0x00, 0xFF, None, None):
        block = random.integers(0, 256, bytes_each, dtype=np.uint8) if fill is None else np.full(bytes_each, fill, np.uint8)
        for place in SCALES[kind]:
            block[place : place + 2] = np.array([random.normal() * 0.01], "<f2").view(np.uint8)
        rows.append(block)
    return np.concatenate(rows)


random = np.random.default_rng(7)
tensors = {}
for kind in SCALES:
    blocks = blocks_of(kind, random)
    name = kind.name.lower()
    tensors[f"{name}.blocks"] = blocks
    with np.errstate(all="ignore"):
        tensors[f"{name}.values"] = dequantize(blocks, kind).astype("<f4")
save_file(tensors, Path(__file__).resolve().parent / "goldens" / "gguf_blocks.safetensors")
