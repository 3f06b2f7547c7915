"""Goldens of optimizers, in float64: parameters and state after one step and after ten (README.md). Lion, which PyTorch lacks, is the paper's algorithm 2."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from nn_layers import filled, snake

GOLDENS = Path(__file__).resolve().parent / "goldens"

SHAPES = {"matrix": [5, 13], "vector": [7], "stack": [2, 3, 4], "single": [1]}

# optimizer, options; the second group, of stack and single, has other options
CASES = {
    "adam": ("Adam", {"lr": 0.02}, {"lr": 0.05, "betas": [0.8, 0.95], "eps": 1e-6}),
    "adam_decay": ("Adam", {"lr": 0.02, "weightDecay": 0.3}, {"weightDecay": 0.0}),
    "adamw": ("AdamW", {"lr": 0.02, "weightDecay": 0.3}, {}),
    "adafactor": ("Adafactor", {"eps": [2**-23, 1e-3]}, {"lr": 0.5, "beta2Decay": -0.5}),
    "adafactor_decay": ("Adafactor", {"lr": 0.1, "weightDecay": 0.2, "d": 1.5, "eps": [1e-3, 0.3]}, {"d": 1.0}),
    "lion": ("Lion", {"lr": 0.01}, {"betas": [0.8, 0.9]}),
    "lion_decay": ("Lion", {"lr": 0.01, "weightDecay": 0.4}, {"weightDecay": 0.1}),
}


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.sub_(group["lr"] * ((first * m + (1 - first) * p.grad).sign() + group["weight_decay"] * p))
                m.mul_(second).add_((1 - second) * p.grad)


def main():
    arrays, cases = {}, {}
    for name, (kind, options, own) in CASES.items():
        params = {key: filled(f"{name}.{key}", shape).requires_grad_() for key, shape in SHAPES.items()}
        keys = list(params)
        groups = [{"params": [params[k] for k in keys[:2]]}, {"params": [params[k] for k in keys[2:]], **snake(own)}]
        optimizer = (Lion if kind == "Lion" else getattr(torch.optim, kind))(groups, **snake(options))
        for step in range(1, 11):
            for key, one in params.items():
                one.grad = filled(f"{name}.{key}.{step}", one.shape)
            optimizer.step()
            if step in (1, 10):
                for key, one in params.items():
                    arrays[f"{name}.{step}.{key}"] = one.detach().clone()
                    for part, value in optimizer.state[one].items():
                        if part != "step" and value is not None:
                            arrays[f"{name}.{step}.{key}.{part}"] = value.clone()
        cases[name] = {"optimizer": kind, "options": options, "own": own}
    save_file({k: v.numpy().astype(np.float32, order="C") for k, v in sorted(arrays.items())}, GOLDENS / "optimizers.safetensors")
    (GOLDENS / "optimizers.json").write_text(json.dumps({"torch": torch.__version__, "shapes": SHAPES, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
