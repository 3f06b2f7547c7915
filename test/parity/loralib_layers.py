"""Goldens of loralib's own layers: forward, gradients, merge, ten steps of AdamW (README.md)."""

import math
from importlib.metadata import version

import loralib
import torch

import common
import fill
from steps import ten_steps


def put(tensors, layer, name, value):
    tensors[f"{layer}.{name}"] = value


def record(tensors, layer, module, inputs, scales):
    """Fills the module's parameters and runs it unmerged, backward, and merged."""
    module = module.double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(fill.uniform(f"{layer}.{name}", parameter.shape, scales[name])))
            put(tensors, layer, name, parameter.clone())
    module.train()
    output = module(inputs)
    d_out = torch.from_numpy(fill.uniform(f"{layer}.d_out", output.shape, 1.0))
    output.backward(d_out)
    put(tensors, layer, "input", inputs)
    put(tensors, layer, "output", output)
    put(tensors, layer, "d_out", d_out)
    if inputs.requires_grad:
        put(tensors, layer, "grad.input", inputs.grad)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            put(tensors, layer, f"grad.{name}", parameter.grad)
    module.eval()
    assert module.merged
    put(tensors, layer, "merged_weight", module.weight.clone())
    merged = module(inputs)
    put(tensors, layer, "merged_output", merged)
    assert (merged - output).abs().max() < 1e-12, "merged and unmerged disagree"
    loralib.mark_only_lora_as_trainable(module)
    module.train()
    losses, trained = ten_steps(module, inputs.detach(), d_out)
    put(tensors, layer, "losses", losses)
    for name, parameter in trained.items():
        put(tensors, layer, f"trained.{name}", parameter)


def dense(layer, shape):
    return torch.from_numpy(fill.uniform(f"{layer}.input", shape, 1.0)).requires_grad_()


def linear_scales(fan_in, r):
    return {"weight": 1.7 / math.sqrt(fan_in), "bias": 0.1, "lora_A": 1 / math.sqrt(fan_in), "lora_B": 0.3 / math.sqrt(r)}


LAYERS = {
    "linear": {"in": 7, "out": 5, "r": 3, "lora_alpha": 6, "bias": True, "fan_in_fan_out": False},
    "linear_fan_in_fan_out": {"in": 7, "out": 5, "r": 3, "lora_alpha": 6, "bias": True, "fan_in_fan_out": True},
    "embedding": {"n": 11, "d": 6, "r": 2, "lora_alpha": 5, "padding_idx": None},
    "embedding_padding": {"n": 11, "d": 6, "r": 2, "lora_alpha": 5, "padding_idx": 0},
}
for slices in ("t", "ft", "tft", "ttt"):
    for turned in (False, True):
        LAYERS[f"merged_linear_{slices}{'_fan_in_fan_out' if turned else ''}"] = {
            "in": 7,
            "out": 12,
            "r": 2,
            "lora_alpha": 6,
            "bias": True,
            "fan_in_fan_out": turned,
            "enable_lora": [slice == "t" for slice in slices],
        }


def build(name, in_=None, out=None, n=None, d=None, bias=True, padding_idx=None, fan_in_fan_out=False, **options):
    if n is not None:
        return loralib.Embedding(n, d, padding_idx=padding_idx, **options)
    kind = loralib.MergedLinear if "enable_lora" in options else loralib.Linear
    module = kind(in_, out, fan_in_fan_out=fan_in_fan_out, bias=bias, **options)
    # loralib leaves a transposed view here; only a plain tensor can be filled row by row
    module.weight.data = module.weight.data.contiguous()
    return module


def main():
    tensors = {}
    for name, layer in LAYERS.items():
        module = build(name, **{"in_" if k == "in" else k: v for k, v in layer.items()})
        if "n" not in layer:
            record(tensors, name, module, dense(name, (2, 3, 7)), linear_scales(7, layer["r"]))
            continue
        ids = torch.from_numpy(fill.integers(f"{name}.input", (3, 4), 11)).long()
        assert len(ids.unique()) < ids.numel(), "an id that occurs twice must add up its gradients"
        if layer["padding_idx"] is not None:
            assert (ids == layer["padding_idx"]).any()
        # Not the usual scales: A uses sqrt(11), since its rows are over the vocabulary.
        scales = {"weight": 1.0, "lora_A": 1 / math.sqrt(11), "lora_B": 0.3 / math.sqrt(2)}
        record(tensors, name, module, ids, scales)

    common.write_tensors(common.GOLDENS / "loralib.safetensors", tensors)
    description = {
        "versions": {"torch": torch.__version__, "loralib": version("loralib")},
        "layers": LAYERS,
        "tensors": {k: list(v.shape) for k, v in sorted(tensors.items())},
    }
    common.write_json(common.GOLDENS / "loralib.json", description)


if __name__ == "__main__":
    main()
