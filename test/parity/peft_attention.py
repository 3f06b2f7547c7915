"""PEFT's LoRA on nn.MultiheadAttention, in float64: the projections of query, key and value, and the output projection.

PEFT 0.21 adds the output projection's product twice, and differentiates only one of them (huggingface/peft#3774). Here it
is added once, as for any other layer: `once` drops the second.
"""

import json

import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file

import fill
from common import GOLDENS, adapter_parameters

C, HEADS, B, T, S = 8, 2, 2, 5, 4
ADAPTER = dict(r=3, lora_alpha=6, target_modules=["attn"])


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(C, HEADS, batch_first=True)
        self.head = torch.nn.Linear(C, 3)

    def forward(self, query, key):
        return self.head(self.attn(query, key, key, need_weights=False)[0])


def values(name, shape):
    return torch.from_numpy(fill.tensor(name, shape))


def once(out_proj):
    """MultiheadAttention.merge has already stored W + dW when it calls this; unmerge likewise has removed it."""
    out_proj.merge = lambda *_, **__: None
    out_proj.unmerge = lambda *_, **__: None


def main():
    model = Net().double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values(name, parameter.shape))
    query, key = values("attention.query", (B, T, C)), values("attention.key", (B, S, C))
    d_out = values("attention.d_out", (B, T, 3))
    tensors = {"query": query, "key": key, "d_out": d_out}
    with torch.no_grad():
        tensors["base"], tensors["base_self"] = model(query, key), model(query, query)

    adapted = get_peft_model(model, LoraConfig(**ADAPTER)).double().train()
    once(adapted.base_model.model.attn.base_layer.out_proj)
    named = adapter_parameters(adapted)
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(values(name, parameter.shape))
    for prefix, given in (("", key), ("self.", query)):
        adapted.zero_grad()
        output = adapted(query, given)
        tensors[f"{prefix}output"] = output.detach()
        (output * d_out).sum().backward()
        for name, parameter in named.items():
            assert parameter.grad.abs().max() > 0, name
            tensors[f"{prefix}grad.{name}"] = parameter.grad.clone()
    shapes = {name: list(parameter.shape) for name, parameter in named.items()}
    adapted.float().save_pretrained(GOLDENS / "peft_attention" / "adapter")
    (GOLDENS / "peft_attention" / "adapter" / "README.md").unlink(missing_ok=True)
    merged = adapted.double()
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(values(name, parameter.shape))
    merged = merged.merge_and_unload()
    tensors["merged.in_proj_weight"] = merged.attn.in_proj_weight.detach()
    tensors["merged.out_proj.weight"] = merged.attn.out_proj.weight.detach()
    with torch.no_grad():
        assert torch.allclose(merged(query, key), tensors["output"], rtol=0, atol=1e-12)
    folder = GOLDENS / "peft_attention"
    save_file({k: v.numpy().astype("float32") for k, v in sorted(tensors.items())}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps({"shapes": shapes, **ADAPTER}, indent=1) + "\n")


main()
