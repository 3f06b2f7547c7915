"""Goldens of PEFT's layers: DoRA, rsLoRA, lora_bias, convolutions (README.md).

Merging is done here by definition if PEFT lacks it or omits something: a dilated convolution's A
(to which PEFT gives no dilation) gets the layer's, and grouped layers are not merged.
"""

import math
from importlib.metadata import version

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

import common
import fill
from steps import ten_steps

PARTS = {
    "lora_A": "lora_A.default.weight",
    "lora_B": "lora_B.default.weight",
    "lora_B_bias": "lora_B.default.bias",
    "lora_magnitude_vector": "lora_magnitude_vector.default.weight",
}
EMBEDDING_PARTS = PARTS | {"lora_A": "lora_embedding_A.default", "lora_B": "lora_embedding_B.default"}

LAYERS = {
    "linear_rslora": {"in": 7, "out": 5, "r": 3, "lora_alpha": 6, "use_rslora": True},
    "linear_bias": {"in": 7, "out": 5, "r": 3, "lora_alpha": 6, "lora_bias": True},
    "linear_dora": {"in": 7, "out": 5, "r": 3, "lora_alpha": 6, "use_dora": True},
    "linear_dora_rslora": {"in": 7, "out": 5, "r": 3, "lora_alpha": 6, "use_dora": True, "use_rslora": True},
    "embedding_dora": {"n": 11, "d": 6, "r": 2, "lora_alpha": 5, "use_dora": True},
}
CONVOLUTIONS = {
    "conv1d": {"size": [9], "kernel": [3], "padding": [1]},
    "conv1d_stride": {"size": [11], "kernel": [5], "stride": [2], "padding": [2]},
    "conv1d_dilation": {"size": [12], "kernel": [3], "dilation": [2]},
    "conv1d_groups": {"size": [9], "kernel": [3], "groups": 2},
    "conv1d_dora": {"size": [9], "kernel": [3], "padding": [1], "use_dora": True},
    "conv2d": {"size": [5, 6], "kernel": [3, 3], "padding": [1, 1]},
    "conv2d_1x1": {"size": [3, 4], "kernel": [1, 1]},
    "conv2d_stride": {"size": [7, 6], "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0]},
    "conv2d_dilation": {"size": [7, 8], "kernel": [3, 2], "dilation": [2, 3], "padding": [2, 1]},
    "conv2d_groups": {"size": [5, 5], "kernel": [3, 3], "groups": 2, "padding": [1, 1]},
    "conv2d_odd": {"size": [6, 7], "kernel": [1, 5], "padding": [0, 2], "lora_bias": True},
    "conv2d_rslora": {"size": [4, 4], "kernel": [2, 2], "use_rslora": True},
    "conv2d_dora": {"size": [5, 6], "kernel": [3, 3], "stride": [2, 2], "use_dora": True},
    "conv3d": {"size": [4, 3, 5], "kernel": [3, 1, 2], "padding": [1, 0, 1]},
    "conv3d_stride": {"size": [5, 4, 5], "kernel": [3, 2, 3], "stride": [2, 1, 2]},
    "conv3d_dora": {"size": [4, 3, 4], "kernel": [2, 2, 2], "use_dora": True},
}
for name, layer in CONVOLUTIONS.items():
    LAYERS[name] = {"in": 4, "out": 6, "r": 4, "lora_alpha": 6} | layer


class Around(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer


def base_of(layer):
    if "n" in layer:
        return nn.Embedding(layer["n"], layer["d"])
    if "kernel" not in layer:
        return nn.Linear(layer["in"], layer["out"])
    kind = [nn.Conv1d, nn.Conv2d, nn.Conv3d][len(layer["kernel"]) - 1]
    geometry = {k: layer[k] for k in ("stride", "padding", "dilation", "groups") if k in layer}
    return kind(layer["in"], layer["out"], layer["kernel"], **geometry)


def adapted(layer):
    options = {k: layer[k] for k in ("use_rslora", "use_dora", "lora_bias") if k in layer}
    config = LoraConfig(r=layer["r"], lora_alpha=layer["lora_alpha"], target_modules=["layer"], **options)
    module = inject_adapter_in_model(config, Around(base_of(layer))).layer.double()
    if "dilation" in layer:
        module.lora_A["default"].dilation = tuple(layer["dilation"])
    return module


def scale_of(name, shape):
    if name.endswith("bias"):
        return 0.1, 0.0
    if name == "lora_magnitude_vector":
        return 0.3, 1.5
    if name == "lora_B":
        return 0.3 / math.sqrt(math.prod(shape[1:])), 0.0
    return (1.7 if name == "weight" else 1.0) / math.sqrt(math.prod(shape[1:])), 0.0


def record(tensors, name, layer):
    module = adapted(layer)
    own = dict(module.named_parameters())
    names = {"weight": "base_layer.weight", "bias": "base_layer.bias"} | (EMBEDDING_PARTS if "n" in layer else PARTS)
    names = {ours: theirs for ours, theirs in names.items() if theirs in own}
    assert sorted(names.values()) == sorted(own), sorted(own)
    put = lambda part, value: tensors.__setitem__(f"{name}.{part}", value.detach().clone())
    with torch.no_grad():
        for ours, theirs in names.items():
            shape = own[theirs].shape
            own[theirs].copy_(torch.from_numpy(fill.uniform(f"{name}.{ours}", shape, *scale_of(ours, shape))))
            put(ours, own[theirs])
    if "n" in layer:
        inputs = torch.from_numpy(fill.integers(f"{name}.input", (3, 4), layer["n"])).long()
    else:
        shape = (2, layer["in"], *layer["size"]) if "kernel" in layer else (2, 3, layer["in"])
        inputs = torch.from_numpy(fill.uniform(f"{name}.input", shape, 1.0)).requires_grad_()
    module.train()
    output = module(inputs)
    d_out = torch.from_numpy(fill.uniform(f"{name}.d_out", output.shape, 1.0))
    output.backward(d_out)
    put("input", inputs)
    put("output", output)
    put("d_out", d_out)
    if inputs.requires_grad:
        put("grad.input", inputs.grad)
    trained = {ours: theirs for ours, theirs in names.items() if ours.startswith("lora_")}
    for ours, theirs in trained.items():
        put(f"grad.{ours}", own[theirs].grad)

    if "groups" not in layer:
        module.merge()
        merged = module(inputs)
        assert (merged - output).abs().max() < 1e-12, "merged and unmerged disagree"
        put("merged_weight", module.base_layer.weight)
        put("merged_output", merged)
        module.unmerge()
    for theirs, parameter in own.items():
        parameter.requires_grad_(theirs in trained.values())
    losses, after = ten_steps(module, inputs.detach(), d_out)
    put("losses", losses)
    for ours, theirs in trained.items():
        put(f"trained.{ours}", after[theirs])


def main():
    tensors = {}
    for name, layer in LAYERS.items():
        record(tensors, name, layer)
    common.write_tensors(common.GOLDENS / "peft_layers.safetensors", tensors)
    description = {
        "versions": {"torch": torch.__version__, "peft": version("peft")},
        "layers": LAYERS,
        "tensors": {k: list(v.shape) for k, v in sorted(tensors.items())},
    }
    common.write_json(common.GOLDENS / "peft_layers.json", description)


if __name__ == "__main__":
    main()
