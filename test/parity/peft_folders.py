"""Adapter folders written by PEFT, with their logits, and the key sets of many configurations (README.md)."""

import json
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open

import common
import llama

UNTIED, TIED = "untied-llama3", "tied"
ODD = "odd-names"
QV = ["q_proj", "v_proj"]

# On the untied model, whose attention has biases. k_proj and o_proj keep theirs without LoRA.
FOLDERS = {
    "bias-all": {"r": 2, "lora_alpha": 6, "target_modules": QV, "bias": "all"},
    "bias-lora-only": {"r": 2, "lora_alpha": 6, "target_modules": QV, "bias": "lora_only"},
    "modules-to-save": {"r": 2, "lora_alpha": 6, "target_modules": QV, "modules_to_save": ["lm_head"]},
    "rslora": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "embedding": {"r": 2, "lora_alpha": 5, "target_modules": ["embed_tokens", "q_proj"]},
    "trainable-tokens": {"r": 2, "lora_alpha": 6, "target_modules": QV, "trainable_token_indices": {"embed_tokens": [3, 5, 96], "lm_head": [7]}},
}
# On the tied model.
TIED_FOLDERS = {
    "tied-trainable-tokens": {"r": 2, "lora_alpha": 6, "target_modules": QV, "trainable_token_indices": [3, 5, 96]},
}

KEYS = [
    ("list", UNTIED, {"r": 2, "target_modules": QV}),
    ("full-name", UNTIED, {"r": 2, "target_modules": ["model.layers.1.mlp.up_proj", "o_proj"]}),
    ("regex", UNTIED, {"r": 2, "target_modules": r".*layers\.1\.(self_attn\.[qk]_proj|mlp\.down_proj)"}),
    ("all-linear", UNTIED, {"r": 2, "target_modules": "all-linear"}),
    ("all-linear-tied", TIED, {"r": 2, "target_modules": "all-linear"}),
    ("all-linear-exclude-list", UNTIED, {"r": 2, "target_modules": "all-linear", "exclude_modules": ["gate_proj", "up_proj", "down_proj"]}),
    ("exclude-regex", UNTIED, {"r": 2, "target_modules": QV, "exclude_modules": r".*layers\.0\..*"}),
    # 21 modules: from 20 on PEFT shortens the expanded list to suffixes.
    ("all-linear-three-layers", UNTIED, {"r": 2, "target_modules": "all-linear"}, {"num_hidden_layers": 3}),
    ("default-targets", UNTIED, {"r": 2}),
    ("bias-all", UNTIED, {"r": 2, "target_modules": QV, "bias": "all"}),
    ("bias-lora-only", UNTIED, {"r": 2, "target_modules": QV, "bias": "lora_only"}),
    ("lora-bias", UNTIED, {"r": 2, "target_modules": QV, "lora_bias": True}),
    ("modules-to-save", UNTIED, {"r": 2, "target_modules": QV, "modules_to_save": ["lm_head"]}),
    ("modules-to-save-norm", UNTIED, {"r": 2, "target_modules": QV, "modules_to_save": ["norm", "embed_tokens"]}),
    ("bias-all-modules-to-save", UNTIED, {"r": 2, "target_modules": QV, "bias": "all", "modules_to_save": ["o_proj"]}),
    ("modules-to-save-tied", TIED, {"r": 2, "target_modules": QV, "modules_to_save": ["embed_tokens"]}),
    ("embedding", UNTIED, {"r": 2, "target_modules": ["embed_tokens", "q_proj"]}),
    ("lm-head", UNTIED, {"r": 2, "target_modules": ["lm_head"]}),
    ("layers-to-transform", UNTIED, {"r": 2, "target_modules": QV, "layers_to_transform": [1]}),
    ("rank-pattern", UNTIED, {"r": 2, "target_modules": QV, "rank_pattern": {r"layers\.0\.self_attn\.q_proj": 4}, "alpha_pattern": {"v_proj": 16}}),
    ("dora", UNTIED, {"r": 2, "target_modules": ["q_proj", "embed_tokens"], "use_dora": True}),
    ("layers-pattern", UNTIED, {"r": 2, "target_modules": QV, "layers_to_transform": 0, "layers_pattern": "layers"}),
    ("alpha-pattern-rslora", UNTIED, {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj", "down_proj"], "alpha_pattern": {".*down.*": 3}}),
    ("gaussian", UNTIED, {"r": 2, "target_modules": QV, "init_lora_weights": "gaussian"}),
    ("random", UNTIED, {"r": 2, "target_modules": QV, "init_lora_weights": False}),
    ("orthogonal", UNTIED, {"r": 2, "target_modules": QV, "init_lora_weights": "orthogonal"}),
    ("fan-in-fan-out", UNTIED, {"r": 2, "target_modules": QV, "fan_in_fan_out": True}),
    ("tied-modules-to-save", TIED, {"r": 2, "target_modules": QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    ("tied-head-to-save", TIED, {"r": 2, "target_modules": QV, "modules_to_save": ["lm_head", "norm"], "ensure_weight_tying": True}),
    ("dora-lora-only", UNTIED, {"r": 2, "target_modules": ["q_proj", "o_proj"], "use_dora": True, "bias": "lora_only"}),
    ("trainable-tokens-tied", TIED, {"r": 2, "target_modules": QV, "trainable_token_indices": [3, 5, 96]}),
    ("trainable-tokens-named", UNTIED, {"r": 2, "target_modules": QV, "trainable_token_indices": {"embed_tokens": [1], "lm_head": [2, 3]}}),
    ("odd-names", ODD, {"r": 2, "target_modules": ["lora", "weight", "bias", "default"], "bias": "all"}),
    ("odd-names-pattern", ODD, {"r": 2, "target_modules": r".*\.(lora|default)", "rank_pattern": {"default": 3}, "modules_to_save": ["bias"], "bias": "lora_only"}),
    ("trainable-tokens", UNTIED, {"r": 2, "target_modules": QV, "trainable_token_indices": [3, 5, 96]}),
]


def write_folder(name, options, variant=UNTIED):
    folder = common.GOLDENS / "peft" / name
    base = llama.folder_of(variant)
    ids, _ = llama.base_batch(variant)
    model = common.add_adapter(common.build(base), **options).eval()
    common.save_adapter(model, folder)
    loaded = PeftModel.from_pretrained(common.build(base), folder).double().eval()
    logits = common.logits_of(loaded, ids)
    assert (logits - common.logits_of(model, ids)).abs().max() == 0
    effect = (logits - common.logits_of(common.build(base), ids)).abs().max().item()
    assert effect > 1e-2, "the adapter does nothing"
    common.write_tensors(folder / "golden.safetensors", {"ids": ids, "logits": logits})
    print(f"{name}: moves the logits by up to {effect:.3f}")


class Inner(torch.nn.Module):
    """Modules named like parameters and adapters."""

    def __init__(self):
        super().__init__()
        self.lora, self.weight, self.default = (torch.nn.Linear(4, 4) for _ in range(3))
        self.bias = torch.nn.Linear(4, 4, bias=False)


class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Inner(), Inner()
        self.bias = torch.nn.Linear(4, 2)


def key_set(model, options, overrides):
    base = Odd() if model == ODD else common.build(llama.folder_of(model), **overrides)
    task = {} if model == ODD else {"task_type": "CAUSAL_LM"}
    peft = get_peft_model(base, LoraConfig(**task, **options))
    trainable = sorted(n for n, p in peft.named_parameters() if p.requires_grad)
    with tempfile.TemporaryDirectory() as folder:
        peft.save_pretrained(folder)
        config = common.sort_lists(json.loads((Path(folder) / "adapter_config.json").read_text()))
        with safe_open(Path(folder) / "adapter_model.safetensors", "np") as file:
            keys = {k: file.get_slice(k).get_shape() for k in sorted(file.keys())}
    return keys, trainable, config


def dump(entries):
    """One key a line: readable, and small."""
    lines = []
    for e in entries:
        head = {k: v for k, v in e.items() if k not in ("keys", "trainable")}
        body = json.dumps(head, sort_keys=True)[:-1]
        keys = ",\n   ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in e["keys"].items())
        lines.append(f' {body},\n  "trainable": {json.dumps(e["trainable"])},\n  "keys": {{\n   {keys}}}}}')
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # such as saved embeddings, which the key sets show anyway
    with common.float64():
        for name, options in FOLDERS.items():
            write_folder(name, options)
        for name, options in TIED_FOLDERS.items():
            write_folder(name, options, TIED)
        entries = []
        for name, model, options, *rest in KEYS:
            overrides = rest[0] if rest else {}
            keys, trainable, config = key_set(model, options, overrides)
            entries.append({"name": name, "model": model if model == ODD else f"llama-{model}", "modelOverrides": overrides, "options": options, "config": config, "trainable": trainable, "keys": keys})
            print(f"{name}: {len(keys)} keys")
    (common.GOLDENS / "peft_keys.json").write_text(dump(entries))
