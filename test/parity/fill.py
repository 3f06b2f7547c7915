"""Values from a hash of a tensor's name, so that a swapped or transposed tensor fails a comparison.

All arithmetic is 32-bit integer arithmetic, which JavaScript's Math.imul reproduces exactly (README.md).
"""

import math

import numpy as np

_GOLDEN = 0x9E3779B9
_MASK = 0xFFFFFFFF


def seed(name):
    """FNV-1a, 32 bits, over the name's UTF-8 bytes."""
    h = 0x811C9DC5
    for byte in name.encode("utf-8"):
        h = ((h ^ byte) * 0x01000193) & _MASK
    return h


def words(name, count):
    """The first `count` 32-bit words of the name's stream."""
    i = np.arange(count, dtype=np.uint64)
    mask = np.uint64(_MASK)
    z = (np.uint64(seed(name)) + i * np.uint64(_GOLDEN)) & mask
    z ^= z >> np.uint64(16)
    z = (z * np.uint64(0x85EBCA6B)) & mask
    z ^= z >> np.uint64(13)
    z = (z * np.uint64(0xC2B2AE35)) & mask
    z ^= z >> np.uint64(16)
    return z


def uniform(name, shape, scale, center=0.0):
    """U(center - scale, center + scale), computed in float64, rounded to float32, returned as float64."""
    n = math.prod(shape)
    u = (words(name, n) >> np.uint64(8)).astype(np.float64) / 2.0**24 - 0.5
    return (u * 2 * scale + center).astype(np.float32).astype(np.float64).reshape(shape)


def integers(name, shape, below):
    """Integers in [0, below), int32: the high 24 bits of each word, modulo `below`."""
    n = math.prod(shape)
    return ((words(name, n) >> np.uint64(8)) % np.uint64(below)).astype(np.int32).reshape(shape)


def scale_of(name, shape):
    """(scale, center) of a tensor, from its name in a checkpoint and its shape, by the first rule that matches."""
    if name.endswith("bias"):
        return 0.1, 0.0
    if name.endswith("norm.weight") or len(shape) == 1:
        return 0.2, 1.0
    if ".lora_A." in name or name.endswith("lora_embedding_A"):
        return 1 / math.sqrt(shape[1]), 0.0
    if ".lora_B." in name or name.endswith("lora_embedding_B"):
        return 0.3 / math.sqrt(shape[1]), 0.0
    if name.endswith("embed_tokens.weight"):
        return 1.0, 0.0
    return 1.7 / math.sqrt(shape[1]), 0.0


def tensor(name, shape):
    shape = tuple(shape)
    scale, center = scale_of(name, shape)
    return uniform(name, shape, scale, center)
