"""Adapters that PEFT combines from others (README.md).

    python peft_weighted.py
"""

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn

import common
import fill

DENSITY = 0.4
WEIGHTS = {"a": 0.7, "b": -1.3, "c": 1.6}
# name: (adapters, PEFT's options). SVD results are compared by their product, since the factors' signs are arbitrary.
CASES = {
    "cat": ("abc", {"combination_type": "cat"}),
    "svd": ("abc", {"combination_type": "svd"}),
    "svd_rank_2": ("ab", {"combination_type": "svd", "svd_rank": 2}),
    "ties": ("ab", {"combination_type": "ties", "density": DENSITY}),
    "ties_frequency": ("ab", {"combination_type": "ties", "density": DENSITY, "majority_sign_method": "frequency"}),
    "magnitude_prune": ("ab", {"combination_type": "magnitude_prune", "density": DENSITY}),
    "dare_linear": ("ab", {"combination_type": "dare_linear", "density": DENSITY}),
    "dare_ties": ("ab", {"combination_type": "dare_ties", "density": DENSITY}),
    "ties_svd": ("ab", {"combination_type": "ties_svd", "density": DENSITY}),
    "magnitude_prune_svd": ("ab", {"combination_type": "magnitude_prune_svd", "density": DENSITY}),
}
ADAPTERS = {
    "a": {"r": 3, "lora_alpha": 6, "target_modules": ["emb", "lin", "head"]},
    "b": {"r": 3, "lora_alpha": 2, "target_modules": ["lin", "head"]},
    "c": {"r": 2, "lora_alpha": 5, "target_modules": ["emb", "lin"]},
}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.lin = nn.Linear(6, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, ids):
        return self.head(self.lin(self.emb(ids)))


def parts_of(layer, name):
    if name in layer.lora_A:
        return {"lora_A.weight": layer.lora_A[name].weight, "lora_B.weight": layer.lora_B[name].weight}
    if name in layer.lora_embedding_A:
        return {"lora_embedding_A": layer.lora_embedding_A[name], "lora_embedding_B": layer.lora_embedding_B[name]}
    return {}


def masks(case):
    """Replaces bernoulli by draws from a stream of the case's name, in the sequence of the calls."""
    drawn = []

    def bernoulli(input):
        name = f"{case}.{len(drawn)}"
        drawn.append(name)
        words = fill.words(name, input.numel())
        uniform = torch.from_numpy((words >> 8).astype("float64") / 2.0**24).reshape(input.shape)
        return (uniform < input).to(input.dtype)

    return bernoulli


def main():
    model = LoraModel(Model().double(), {"a": LoraConfig(**ADAPTERS["a"])}, "a")
    for name in "bc":
        model.peft_config[name] = LoraConfig(**ADAPTERS[name])
        model.inject_adapter(model.model, name)
    layers = {path: getattr(model.model, path) for path in ("emb", "lin", "head")}
    model = model.double()
    with torch.no_grad():
        for name in ADAPTERS:
            for path, layer in layers.items():
                for part, tensor in parts_of(layer, name).items():
                    tensor.copy_(torch.from_numpy(fill.tensor(f"{name}.{path}.{part}", tensor.shape)))
    out = {}
    real = torch.bernoulli
    for case, (adapters, options) in CASES.items():
        torch.bernoulli = masks(case)
        model.add_weighted_adapter(list(adapters), [WEIGHTS[name] for name in adapters], case, **options)
        for path, layer in layers.items():
            if "svd" in case and parts_of(layer, case):
                out[f"{case}.{path}.delta"] = layer.get_delta_weight(case)
            else:
                for part, tensor in parts_of(layer, case).items():
                    out[f"{case}.{path}.{part}"] = tensor
    torch.bernoulli = real
    common.write_tensors(common.GOLDENS / "peft" / "weighted.safetensors", out)
    print(f"{len(out)} tensors")


if __name__ == "__main__":
    main()
