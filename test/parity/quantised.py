"""Weights quantised by gguf-py (q8_0, q4_0), and to NF4 by the QLoRA paper: goldens/quantised.safetensors.

The values are not stored: they are a hash of their indices (`Array::random` of the engine's tests), times a factor by
block. NF4 follows arXiv 2305.14314 (section 3 and appendix E): blocks of 64, scaled by the largest magnitude; these
scales, minus their mean, are 8-bit floats (E4M3) in groups of 256. The paper does not specify the rounding of the second
scale; here it is rounded up to 16 significant bits, as in the layout (crates/cpu/src/quant/nf4.rs).

Blocks of `ggml.*` come from ggml's library, since gguf-py has no k-quants: GGML_BASE is the path of its
libggml-base.so, for example from npm's @node-llama-cpp/linux-x64 3.22.1 (bins/linux-x64).
"""

import ctypes
import os

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize
from safetensors.numpy import save_file

F = np.float32
TABLE = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], F)  # fmt: skip


def drawn(name, size):
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 & 0xFFFFFFFF
    z = (np.arange(size, dtype=np.uint64) * 0x9E3779B9 + seed) & 0xFFFFFFFF
    z = (z ^ (z >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    z = (z ^ (z >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    z ^= z >> 16
    values = ((z >> 8).astype(np.float64) / (1 << 24) - 0.5) * 2
    blocks = values.astype(F).reshape(-1, 32)
    # Different scales, and blocks of zeros.
    return (blocks * ((np.arange(len(blocks)) * 7 % 11).astype(F)[:, None] / F(64))).ravel()


def nf4(values):
    blocks = values.reshape(-1, 64)
    scales = np.abs(blocks).max(1)
    mean = F(sum(float(s) for s in scales) / len(scales))
    out = []
    for start in range(0, len(blocks), 256):
        group, own = blocks[start : start + 256], scales[start : start + 256]
        far = np.abs(own - mean).max()
        bits = np.array([far / F(448)], F).view(np.uint32)
        step = ((bits + np.uint32(0xFF)) & np.uint32(0xFFFFFF00)).view(F)[0]
        inverse = F(1) / step
        codes = torch.from_numpy((own - mean) * inverse).clamp(-448, 448).to(torch.float8_e4m3fn)
        again = codes.to(torch.float32).numpy() * step + mean
        out.append(np.array([step, mean], F).tobytes())
        for block, code, scale in zip(group, codes.view(torch.uint8).numpy(), again):
            x = block * (F(1) / scale)
            between = (TABLE[:-1] + TABLE[1:]) / F(2)
            places = np.searchsorted(between, x, side="left").astype(np.uint8)
            low, high = places.reshape(2, 2, 16).transpose(1, 0, 2)
            out.append(bytes([code]) + (low | high << 4).astype(np.uint8).tobytes())
    joined = b"".join(out)
    return np.frombuffer(joined + bytes(-len(joined) % 4), np.uint8)


ggml = ctypes.CDLL(os.environ["GGML_BASE"])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + 3 * [ctypes.c_int64] + [ctypes.c_void_p]
BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "q4_k": 144, "q5_k": 176, "q6_k": 210}


def by_ggml(kind, values):
    rows = np.ascontiguousarray(values.reshape(-1, 256))
    out = np.zeros(rows.size // (256 if kind.endswith("k") else 32) * BYTES[kind], np.uint8)
    number = Type[kind.upper()].value
    written = ggml.ggml_quantize_chunk(number, rows.ctypes.data, out.ctypes.data, 0, len(rows), 256, None)
    assert written == out.size
    return out


some = drawn("quantised", 1024)
blocks = drawn("blocks", 16384)
many = drawn("nf4", 64 * 600)
save_file(
    {
        "q8_0": quantize(some.reshape(4, 256), Type.Q8_0).ravel(),
        "q4_0": quantize(some.reshape(4, 256), Type.Q4_0).ravel(),
        "nf4": nf4(many),
        **{f"ggml.{kind}": by_ggml(kind, blocks) for kind in BYTES},
    },
    Path(__file__).parent / "goldens" / "quantised.safetensors",
)
