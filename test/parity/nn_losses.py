"""Goldens of torch.nn.functional's losses, in float64: the loss, and the gradient of every input (README.md)."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from nn_layers import filled, snake

GOLDENS = Path(__file__).resolve().parent / "goldens"

# loss, inputs by name with their shapes and the function applied to the filled values, options
LOSSES = {
    "mse": ("mseLoss", {"input": [3, 5], "target": [3, 5]}, {}),
    "mse_sum": ("mseLoss", {"input": [7], "target": [7]}, {"reduction": "sum"}),
    "mse_none": ("mseLoss", {"input": [2, 3, 4], "target": [2, 3, 4]}, {"reduction": "none"}),
    "l1": ("l1Loss", {"input": [3, 65], "target": [3, 65]}, {}),
    "l1_none": ("l1Loss", {"input": [5], "target": [5]}, {"reduction": "none"}),
    "huber": ("huberLoss", {"input": [4, 9], "target": [4, 9]}, {}),
    "huber_delta": ("huberLoss", {"input": [4, 9], "target": [4, 9]}, {"delta": 0.3, "reduction": "sum"}),
    "bce": ("bceWithLogits", {"input": [4, 3], "target": [4, 3]}, {}),
    "bce_weighted": (
        "bceWithLogits",
        {"input": [4, 3], "target": [4, 3], "weight": [4, 1], "posWeight": [3]},
        {"reduction": "sum"},
    ),
    "bce_none": ("bceWithLogits", {"input": [2, 1, 5], "target": [2, 1, 5], "posWeight": [5]}, {"reduction": "none"}),
    "kl": ("klDiv", {"input": [3, 7], "target": [3, 7]}, {}),
    "kl_batchmean": ("klDiv", {"input": [3, 7], "target": [3, 7]}, {"reduction": "batchmean"}),
    "kl_log": ("klDiv", {"input": [3, 7], "target": [3, 7]}, {"reduction": "sum", "logTarget": True}),
    "kl_none": ("klDiv", {"input": [5], "target": [5]}, {"reduction": "none"}),
    "cosine": ("cosineSimilarity", {"a": [4, 9], "b": [4, 9]}, {}),
    "cosine_dim": ("cosineSimilarity", {"a": [4, 3, 2], "b": [4, 3, 2]}, {"dim": 0, "eps": 0.001}),
    "cosine_pairs": ("cosineSimilarity", {"a": [4, 1, 5], "b": [3, 5]}, {"dim": -1}),
}

FUNCTIONS = {
    "mseLoss": "mse_loss",
    "l1Loss": "l1_loss",
    "huberLoss": "huber_loss",
    "bceWithLogits": "binary_cross_entropy_with_logits",
    "klDiv": "kl_div",
    "cosineSimilarity": "cosine_similarity",
}


def made(function, options, key, one):
    """Probabilities, or their logarithms, for a loss that takes them; as in the test."""
    if function == "bceWithLogits" and key == "target":
        return one.sigmoid()
    if function == "klDiv":
        return one.softmax(-1) if key == "target" and not options.get("logTarget") else one.log_softmax(-1)
    return one


def main():
    tensors = {}
    for name, (function, inputs, options) in LOSSES.items():
        leaves = {key: filled(f"{name}.{key}", shape).requires_grad_() for key, shape in inputs.items()}
        # PyTorch gives no gradients of weights.
        given = {key: made(function, options, key, one) for key, one in leaves.items()}
        given = {key: one.detach() if "eight" in key else one for key, one in given.items()}
        first, second, *more = given.values()
        keywords = snake({**options, **dict(zip(list(given)[2:], more))})
        loss = getattr(torch.nn.functional, FUNCTIONS[function])(first, second, **keywords)
        loss.backward(filled(f"{name}.d_out", loss.shape) if loss.dim() > 0 else None)
        tensors[f"{name}.output"] = loss.detach()
        for key, one in leaves.items():
            if "eight" not in key:
                tensors[f"{name}.grad.{key}"] = one.grad
    arrays = {k: v.numpy().astype(np.float32, order="C") for k, v in sorted(tensors.items())}
    save_file(arrays, GOLDENS / "nn_losses.safetensors")
    cases = {n: {"loss": f, "inputs": i, "options": o} for n, (f, i, o) in LOSSES.items()}
    text = json.dumps({"torch": torch.__version__, "losses": cases}, indent=1)
    (GOLDENS / "nn_losses.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
