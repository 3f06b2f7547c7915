"""Ten steps of AdamW on one layer: the losses before each, and the trained parameters."""

import torch

STEPS = 10
OPTIONS = {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def ten_steps(module, inputs, target):
    """Minimises the mean of (module(inputs) - target)^2 over the parameters that require a gradient."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), **OPTIONS)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (module(inputs) - target).pow(2).mean()
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    return torch.stack(losses), {name: p.detach().clone() for name, p in named.items()}
