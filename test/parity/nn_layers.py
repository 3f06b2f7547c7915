"""Goldens of torch.nn's plain layers, in float64: output, the gradients of the input and every parameter, and buffers afterwards (README.md)."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

import fill

GOLDENS = Path(__file__).resolve().parent / "goldens"

# layer, positional arguments, options by lowrank's names, the input's shape
LAYERS = {
    "conv1d": ("Conv1d", [4, 6, 3], {"padding": 1}, [2, 4, 9]),
    "conv1d_even_same": ("Conv1d", [3, 2, 4], {"padding": "same", "dilation": 3}, [2, 3, 11]),
    "conv1d_unbatched": ("Conv1d", [3, 5, 2], {"bias": False}, [3, 7]),
    "conv1d_circular": ("Conv1d", [2, 3, 3], {"padding": 2, "paddingMode": "circular", "stride": 2}, [2, 2, 8]),
    "conv2d": ("Conv2d", [3, 8, 3], {"stride": 2, "padding": [1, 2]}, [2, 3, 7, 6]),
    "conv2d_valid": ("Conv2d", [3, 4, [3, 2]], {"padding": "valid", "dilation": [1, 2]}, [1, 3, 6, 7]),
    "conv2d_groups": ("Conv2d", [6, 4, [2, 3]], {"groups": 2, "dilation": 2, "padding": 2}, [2, 6, 8, 7]),
    "conv2d_depthwise": ("Conv2d", [5, 10, 3], {"groups": 5, "padding": 1, "stride": [2, 1]}, [2, 5, 6, 9]),
    "conv2d_patches": ("Conv2d", [3, 7, 4], {"stride": 4}, [2, 3, 8, 12]),
    "conv2d_reflect": ("Conv2d", [2, 3, 3], {"padding": [2, 1], "paddingMode": "reflect"}, [2, 2, 5, 4]),
    "conv2d_replicate_same": ("Conv2d", [2, 3, [4, 2]], {"padding": "same", "paddingMode": "replicate"}, [1, 2, 5, 4]),
    "conv2d_circular": ("Conv2d", [2, 3, 3], {"padding": 1, "paddingMode": "circular", "groups": 1}, [1, 2, 4, 5]),
    "conv3d": ("Conv3d", [2, 4, [2, 3, 2]], {"stride": [1, 2, 1], "padding": [1, 1, 0]}, [2, 2, 3, 5, 4]),
    "conv3d_groups": ("Conv3d", [4, 2, 2], {"groups": 2, "dilation": [1, 2, 1], "padding": 1}, [1, 4, 3, 4, 3]),
    "max_pool1d": ("MaxPool1d", [3], {"stride": 2, "padding": 1, "ceilMode": True}, [2, 3, 8]),
    "max_pool2d": ("MaxPool2d", [[3, 2]], {"padding": [1, 0]}, [2, 3, 8, 7]),
    "max_pool3d": ("MaxPool3d", [2], {"stride": [1, 2, 3], "ceilMode": True}, [2, 2, 3, 5, 6]),
    "avg_pool1d": ("AvgPool1d", [4], {"stride": 3, "padding": 2, "ceilMode": True}, [2, 3, 9]),
    "avg_pool2d": ("AvgPool2d", [3], {"stride": 2, "padding": 1, "countIncludePad": False}, [2, 3, 6, 7]),
    "avg_pool3d": ("AvgPool3d", [[2, 3, 2]], {"padding": [1, 1, 0], "ceilMode": True}, [3, 4, 5, 5]),
    "adaptive_avg_pool1d": ("AdaptiveAvgPool1d", [4], {}, [2, 3, 9]),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", [[3, None]], {}, [2, 3, 7, 5]),
    "adaptive_avg_pool3d": ("AdaptiveAvgPool3d", [[1, 2, 4]], {}, [2, 2, 3, 5, 6]),
    "group_norm": ("GroupNorm", [3, 6], {"eps": 0.01}, [2, 6, 4, 5]),
    "group_norm_plain": ("GroupNorm", [1, 4], {"affine": False}, [3, 4, 7]),
    "batch_norm1d": ("BatchNorm1d", [5], {}, [7, 5]),
    "batch_norm1d_length": ("BatchNorm1d", [3], {"eps": 0.01, "momentum": 0.3}, [4, 3, 9]),
    "batch_norm1d_eval": ("BatchNorm1d", [5], {}, [3, 5]),
    "batch_norm1d_plain_eval": ("BatchNorm1d", [4], {"affine": False}, [1, 4, 3]),
    "batch_norm1d_untracked_eval": ("BatchNorm1d", [4], {"trackRunningStats": False}, [3, 4, 5]),
    "batch_norm2d": ("BatchNorm2d", [3], {"momentum": None}, [2, 3, 5, 7]),
    "batch_norm2d_single": ("BatchNorm2d", [65], {}, [1, 65, 3, 1]),
    "batch_norm2d_eval": ("BatchNorm2d", [3], {"eps": 0.001}, [2, 3, 1, 4]),
    "relu": ("ReLU", [], {}, [2, 3]),
    "gelu": ("GELU", [], {}, [3, 65]),
    "gelu_tanh": ("GELU", [], {"approximate": "tanh"}, [3, 5]),
    "silu": ("SiLU", [], {}, [7]),
    "tanh": ("Tanh", [], {}, [2, 1, 5]),
    "sigmoid": ("Sigmoid", [], {}, [1, 9]),
    "conv_transpose1d": ("ConvTranspose1d", [4, 6, 3], {}, [2, 4, 9]),
    "conv_transpose1d_stride": ("ConvTranspose1d", [2, 3, 4], {"stride": 3, "padding": 1, "outputPadding": 2}, [1, 2, 65]),
    "conv_transpose1d_unbatched": ("ConvTranspose1d", [3, 5, 2], {"bias": False, "dilation": 2}, [3, 7]),
    "conv_transpose2d": ("ConvTranspose2d", [3, 4, 3], {"stride": 2, "padding": 1, "outputPadding": 1}, [2, 3, 5, 4]),
    "conv_transpose2d_groups": (
        "ConvTranspose2d",
        [6, 4, [2, 3]],
        {"groups": 2, "stride": [1, 2], "padding": [0, 1], "dilation": [2, 1]},
        [2, 6, 4, 3],
    ),
    "conv_transpose2d_kernel": ("ConvTranspose2d", [5, 2, 2], {"stride": 2}, [1, 5, 3, 7]),
    "upsample_nearest1d": ("Upsample", [], {"scaleFactor": 2.5}, [2, 3, 7]),
    "upsample_nearest2d": ("Upsample", [], {"scaleFactor": 2}, [2, 3, 3, 5]),
    "upsample_nearest2d_size": ("Upsample", [], {"size": [5, 3]}, [1, 2, 7, 4]),
    "upsample_nearest3d": ("Upsample", [], {"size": 4, "mode": "nearest"}, [1, 2, 2, 3, 5]),
    "upsample_linear": ("Upsample", [], {"scaleFactor": 1.7, "mode": "linear"}, [2, 3, 9]),
    "upsample_bilinear": ("Upsample", [], {"scaleFactor": 2, "mode": "bilinear"}, [2, 3, 4, 5]),
    "upsample_bilinear_corners": (
        "Upsample",
        [],
        {"size": [7, 9], "mode": "bilinear", "alignCorners": True},
        [1, 2, 4, 5],
    ),
    "upsample_bilinear_down": ("Upsample", [], {"scaleFactor": [0.6, 3], "mode": "bilinear"}, [1, 2, 9, 1]),
    "upsample_trilinear": ("Upsample", [], {"size": [3, 5, 1], "mode": "trilinear", "alignCorners": True}, [1, 2, 2, 3, 4]),
    "flatten": ("Flatten", [], {}, [2, 3, 4, 5]),
    "flatten_inner": ("Flatten", [1, -2], {}, [2, 3, 4, 5]),
    "softmax": ("Softmax", [1], {}, [2, 3, 4]),
    "log_softmax": ("LogSoftmax", [-1], {}, [3, 65]),
    "leaky_relu": ("LeakyReLU", [], {}, [3, 5]),
    "leaky_relu_slope": ("LeakyReLU", [0.3], {}, [7]),
    "elu": ("ELU", [], {}, [3, 65]),
    "elu_alpha": ("ELU", [1.7], {}, [2, 5]),
    "softplus": ("Softplus", [], {}, [3, 5]),
    "softplus_beta": ("Softplus", [3, 0.5], {}, [3, 5]),
    "log_sigmoid": ("LogSigmoid", [], {}, [4, 3]),
    "identity": ("Identity", [], {}, [2, 3]),
    "pixel_shuffle": ("PixelShuffle", [3], {}, [2, 18, 4, 5]),
    "pixel_shuffle_unbatched": ("PixelShuffle", [2], {}, [4, 3, 1]),
    "pixel_unshuffle": ("PixelUnshuffle", [2], {}, [2, 1, 3, 6, 4]),
    "instance_norm1d": ("InstanceNorm1d", [5], {}, [2, 5, 7]),
    "instance_norm1d_unbatched": ("InstanceNorm1d", [5], {"affine": True}, [5, 9]),
    "instance_norm1d_eval": ("InstanceNorm1d", [4], {"eps": 0.01}, [3, 4, 5]),
    "instance_norm2d": ("InstanceNorm2d", [3], {"affine": True, "eps": 0.001}, [2, 3, 5, 7]),
    "instance_norm2d_tracked": ("InstanceNorm2d", [3], {"trackRunningStats": True, "momentum": 0.3}, [2, 3, 4, 3]),
    "instance_norm2d_tracked_eval": ("InstanceNorm2d", [3], {"affine": True, "trackRunningStats": True}, [2, 3, 4, 1]),
}

# embedDim, numHeads, options, the shapes of query and key
ATTENTION = {
    "attention_self": (8, 2, {}, [5, 3, 8], None),
    "attention_batch_first": (12, 3, {"batchFirst": True, "bias": False}, [2, 5, 12], None),
    "attention_cross": (8, 4, {"batchFirst": True}, [2, 3, 8], [2, 6, 8]),
    "attention_unbatched": (6, 2, {}, [4, 6], None),
}

# layer, sizes of input and hidden state, options, the shapes of the input and of given states
RECURRENT = {
    "lstm": ("LSTM", [3, 5], {}, [7, 2, 3], None),
    "lstm_deep": ("LSTM", [3, 4], {"numLayers": 2, "bidirectional": True, "batchFirst": True}, [2, 5, 3], [4, 2, 4]),
    "lstm_unbatched": ("LSTM", [3, 4], {"bias": False}, [1, 3], [1, 4]),
    "lstm_projected": ("LSTM", [3, 6], {"projSize": 2, "numLayers": 2, "bidirectional": True}, [4, 3, 3], None),
    "lstm_wide": ("LSTM", [65, 64], {}, [3, 1, 65], [1, 1, 64]),
    "gru": ("GRU", [3, 5], {}, [7, 2, 3], None),
    "gru_deep": ("GRU", [3, 4], {"numLayers": 2, "bidirectional": True, "batchFirst": True}, [2, 5, 3], [4, 2, 4]),
    "gru_unbatched": ("GRU", [3, 4], {"bias": False}, [2, 3], [1, 4]),
}


def snake(options):
    named = {re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), k): v for k, v in options.items()}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in named.items()}


def filled(name, shape):
    return torch.from_numpy(fill.tensor(name, shape))


def record(tensors, name, module, inputs, run):
    """Fills the module and its inputs (shapes by name) and runs forward and backward."""
    module = module.double()
    with torch.no_grad():
        for key, parameter in [*module.named_parameters(), *module.named_buffers()]:
            if parameter.is_floating_point():
                parameter.copy_(filled(f"{name}.{key}", parameter.shape))
    module.train(not name.endswith("_eval"))
    inputs = {key: filled(f"{name}.{key}", shape).requires_grad_() for key, shape in inputs.items()}
    output = run(module, **inputs)
    output.backward(filled(f"{name}.d_out", output.shape))
    tensors[f"{name}.output"] = output.detach()
    for key, one in inputs.items():
        tensors[f"{name}.grad.{key}"] = one.grad
    for key, parameter in module.named_parameters():
        tensors[f"{name}.grad.{key}"] = parameter.grad
    for key, buffer in module.named_buffers():
        tensors[f"{name}.buffer.{key}"] = buffer


def main():
    tensors = {}
    for name, (kind, args, options, shape) in LAYERS.items():
        args = [tuple(a) if isinstance(a, list) else a for a in args]
        module = getattr(torch.nn, kind)(*args, **snake(options))
        record(tensors, name, module, {"input": shape}, lambda module, input: module(input))
    for name, (features, heads, options, query, key) in ATTENTION.items():
        module = torch.nn.MultiheadAttention(features, heads, **snake(options))
        if key is None:
            record(tensors, name, module, {"query": query}, lambda m, query: m(query, query, query)[0])
        else:
            inputs = {"query": query, "key": key, "value": key}
            record(tensors, name, module, inputs, lambda m, query, key, value: m(query, key, value)[0])
    for name, (kind, args, options, shape, state) in RECURRENT.items():
        module = getattr(torch.nn, kind)(*args, **snake(options))
        inputs = {"input": shape} if state is None else {"input": shape, "h": state}
        if state is not None and kind == "LSTM":
            inputs["c"] = state

        def run(module, input, h=None, c=None):
            """Concatenates all outputs in one row, so that every gradient flows."""
            output, states = module(input, h if c is None else (h, c))
            states = states if isinstance(states, tuple) else (states,)
            return torch.cat([one.flatten() for one in (output, *states)]).unsqueeze(0)

        record(tensors, name, module, inputs, run)
    arrays = {k: v.numpy().astype(np.float32, order="C") for k, v in sorted(tensors.items())}
    save_file(arrays, GOLDENS / "nn_layers.safetensors")
    cases = {n: {"layer": k, "args": a, "options": o, "input": i} for n, (k, a, o, i) in LAYERS.items()}
    attention = {
        n: {"args": [f, h], "options": o, "inputs": {"query": q} if k is None else {"query": q, "key": k, "value": k}}
        for n, (f, h, o, q, k) in ATTENTION.items()
    }
    recurrent = {
        n: {"layer": k, "args": a, "options": o, "input": i, "state": s} for n, (k, a, o, i, s) in RECURRENT.items()
    }
    text = json.dumps({"torch": torch.__version__, "layers": cases, "attention": attention, "recurrent": recurrent}, indent=1)
    (GOLDENS / "nn_layers.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
