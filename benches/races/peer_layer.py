"""One LoRA layer of loralib or of PEFT on PyTorch, forward and backward, timed.

    python peer_layer.py loralib|peft|frozen linear|linear2048|embedding|conv2d [--steps N]

"frozen" is PyTorch's layer alone, with a frozen weight. Turns as in peer.py.
"""

import argparse

import peer

R, ALPHA = 16, 32
FLOATS = {"linear": (512, 4096), "linear2048": (2048, 4096), "conv2d": (8, 256, 32, 32)}


def base(name):
    import torch

    return {
        "linear": lambda: torch.nn.Linear(4096, 4096, bias=False),
        "embedding": lambda: torch.nn.Embedding(49152, 576),
        "conv2d": lambda: torch.nn.Conv2d(256, 256, 3, padding=1),
    }[name.removesuffix("2048")]()


def of_loralib(name):
    import loralib

    options = {"r": R, "lora_alpha": ALPHA, "merge_weights": False}
    layer = {
        "linear": lambda: loralib.Linear(4096, 4096, bias=False, **options),
        "embedding": lambda: loralib.Embedding(49152, 576, **options),
        "conv2d": lambda: loralib.Conv2d(256, 256, 3, padding=1, **options),
    }[name.removesuffix("2048")]()
    loralib.mark_only_lora_as_trainable(layer)
    return layer


def of_peft(name):
    import torch
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        torch.nn.Sequential(base(name)), LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["0"])
    )


def frozen(name):
    return base(name).requires_grad_(False)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("peer", choices=["loralib", "peft", "frozen"])
    options.add_argument("layer", choices=["linear", "linear2048", "embedding", "conv2d"])
    options.add_argument("--steps", type=int, default=1000)
    args = options.parse_args()

    import torch

    layer = {"loralib": of_loralib, "peft": of_peft, "frozen": frozen}[args.peer](args.layer)
    layer.train()
    if args.layer == "embedding":
        x = torch.randint(0, 49152, (1, 2048))
    else:
        x = torch.rand(FLOATS[args.layer], requires_grad=True)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    d_out = torch.rand_like(layer(x)).detach()

    passes = 50 if args.layer == "embedding" else 1

    def turn():
        for _ in range(passes):
            y = layer(x)
            if y.requires_grad:
                y.backward(d_out)
            for leaf in [*parameters, x]:
                leaf.grad = None
        return {"passes": passes}

    peer.race(turn, args.steps)


if __name__ == "__main__":
    main()
