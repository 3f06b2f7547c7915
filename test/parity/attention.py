"""Goldens of torch.nn.functional.scaled_dot_product_attention, in float64: the output, and the gradients of the inputs (README.md)."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

import fill
from nn_layers import filled

GOLDENS = Path(__file__).resolve().parent / "goldens"

# shapes of q, k and v; mask (kind and shape), causal, scale
CASES = {
    "plain": ([2, 3, 5, 8], [2, 3, 7, 8], None, {}, {}),
    "causal": ([2, 3, 9, 16], [2, 3, 9, 16], None, {}, {"causal": True}),
    "causal_more_keys": ([1, 2, 5, 8], [1, 2, 9, 8], None, {}, {"causal": True}),
    "causal_fewer_keys": ([1, 2, 9, 8], [1, 2, 5, 8], None, {}, {"causal": True}),
    "scaled": ([1, 2, 3, 4], [1, 2, 3, 4], None, {}, {"scale": 0.3}),
    "long": ([1, 1, 65, 32], [1, 1, 129, 32], None, {}, {}),
    "grouped": ([2, 6, 5, 8], [2, 2, 7, 8], None, {}, {}),
    "grouped_causal": ([1, 4, 33, 12], [1, 1, 33, 12], None, {}, {"causal": True}),
    "keys": ([2, 3, 5, 8], [2, 3, 7, 8], None, {"whole": [2, 1, 1, 7]}, {}),
    "keys_of_all": ([2, 3, 5, 8], [2, 3, 7, 8], None, {"whole": [7]}, {}),
    "keys_causal": ([2, 4, 7, 8], [2, 2, 7, 8], None, {"whole": [2, 1, 1, 7]}, {"causal": True}),
    "pairs": ([2, 3, 5, 8], [2, 3, 7, 8], None, {"whole": [5, 7]}, {}),
    "pairs_of_heads": ([2, 4, 5, 8], [2, 2, 6, 8], None, {"whole": [2, 4, 5, 6]}, {}),
    "pairs_causal": ([2, 3, 6, 8], [2, 3, 6, 8], None, {"whole": [6, 6]}, {"causal": True}),
    "hidden_row": ([1, 2, 4, 8], [1, 2, 5, 8], None, {"row": [4, 5]}, {}),
    "bias": ([2, 3, 5, 8], [2, 3, 7, 8], None, {"floats": [3, 5, 7]}, {}),
    "bias_causal": ([2, 2, 6, 8], [2, 2, 6, 8], None, {"floats": [6]}, {"causal": True}),
    "infinite_bias": ([2, 3, 5, 8], [2, 3, 7, 8], None, {"infinite": [2, 1, 5, 7]}, {}),
    "other_values": ([2, 3, 5, 8], [2, 3, 7, 8], [2, 3, 7, 3], {}, {"causal": True}),
    "other_values_grouped": ([2, 4, 5, 8], [2, 2, 7, 8], [2, 2, 7, 11], {}, {}),
    "wide": ([1, 2, 3, 260], [1, 1, 4, 260], None, {}, {}),
    "three": ([3, 5, 8], [3, 7, 8], None, {}, {"causal": True}),
    "three_masked": ([4, 5, 8], [2, 7, 8], None, {"whole": [5, 7]}, {}),
    "two": ([5, 8], [7, 8], None, {}, {}),
}


def mask_of(name, mask):
    """The stored values, which lowrank gets, and the same values for PyTorch."""
    if not mask:
        return None, None
    kind, shape = next(iter(mask.items()))
    if kind in ("whole", "row"):
        stored = torch.from_numpy(fill.integers(f"{name}.mask", shape, 3))
        # Every query sees a key, except in case hidden_row.
        stored[..., 0] = 1
        if kind == "row":
            stored[2] = 0
        return stored, stored != 0
    values = filled(f"{name}.mask", shape)
    if kind == "infinite":
        values[torch.from_numpy(fill.integers(f"{name}.hidden", shape, 3)) == 0] = -float("inf")
        values[1, 0, 3] = -float("inf")
    return values, values.clone().requires_grad_()


def main():
    arrays, cases = {}, {}
    for name, (q, k, v, mask, options) in CASES.items():
        leaves = {"q": q, "k": k, "v": v or k}
        leaves = {key: filled(f"{name}.{key}", shape) * 3 for key, shape in leaves.items()}
        for key, one in leaves.items():
            arrays[f"{name}.{key}"] = one.clone()
            one.requires_grad_()
        stored, given = mask_of(name, mask)
        if stored is not None:
            arrays[f"{name}.mask"] = stored
        used = given
        if options.get("causal") and given is not None:
            seen = torch.ones(q[-2], k[-2], dtype=torch.bool).tril()
            used = given & seen if given.dtype == torch.bool else given.masked_fill(~seen, -float("inf"))
        tensors = leaves.values()
        grouped = len(q) > 2 and q[-3] != k[-3]
        if grouped and len(q) == 3:
            tensors = [one.unsqueeze(0) for one in tensors]
        with sdpa_kernel(SDPBackend.MATH):
            y = F.scaled_dot_product_attention(
                *tensors, attn_mask=used, is_causal=bool(options.get("causal")) and given is None, scale=options.get("scale"), enable_gqa=grouped
            )
        if grouped and len(q) == 3:
            y = y.squeeze(0)
        y.backward(filled(f"{name}.d_out", y.shape))
        arrays[f"{name}.d_out"] = filled(f"{name}.d_out", y.shape)
        arrays[f"{name}.output"] = y.detach()
        for key, one in leaves.items():
            arrays[f"{name}.grad.{key}"] = one.grad
        if given is not None and given.requires_grad:
            arrays[f"{name}.grad.mask"] = given.grad
        cases[name] = {"mask": bool(mask), "options": options}
    kinds = lambda one: np.float32 if one.is_floating_point() else np.int32
    save_file({k: v.numpy().astype(kinds(v), order="C") for k, v in sorted(arrays.items())}, GOLDENS / "attention.safetensors")
    (GOLDENS / "attention.json").write_text(json.dumps({"torch": torch.__version__, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
