"""Adapter folders of PEFT on small models of every kind of layer, with their outputs (README.md).

    python peft_modules.py                              writes goldens/peft/modules/NAME
    python peft_modules.py MODEL ADAPTER_DIR OUT.json   the output of MODEL (text, image) with a folder from lowrank

The second fails if a key is missing or unexpected, or if PEFT would save other keys.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

import common
import fill
from adapter_logits import load_adapter


class Text(nn.Module):
    """Ids [2, 8] through an embedding, a transposed and a plain linear layer, and a classifier."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.proj = Conv1D(8, 6)
        self.lin = nn.Linear(8, 10)
        self.classifier = nn.Linear(10, 5)

    def forward(self, x):
        return self.classifier(self.lin(self.proj(self.emb(x)).relu()).relu())

    @staticmethod
    def input():
        return torch.from_numpy(fill.integers("text.input", (2, 8), 11)).long()


class Image(nn.Module):
    """Values [2, 4, 9] through convolutions of one, two and three dimensions."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(4, 6, 3, stride=1, padding=1, dilation=1)
        self.conv2 = nn.Conv2d(6, 4, (3, 2), stride=(1, 2), padding=(1, 1))
        self.conv3 = nn.Conv3d(4, 2, (1, 3, 2), padding=(0, 1, 0))
        self.point = nn.Conv2d(2, 3, 1)
        self.classifier = nn.Linear(3, 5)

    def forward(self, x):
        x = self.conv1(x).relu().reshape(2, 6, 3, 3)
        x = self.conv2(x).relu()
        x = self.conv3(x.reshape(2, 4, 1, 3, 2)).relu()
        x = self.point(x.reshape(2, 2, 3, 1)).relu()
        return self.classifier(x.reshape(2, 3, 3).mean(-1))

    @staticmethod
    def input():
        return torch.from_numpy(fill.uniform("image.input", (2, 4, 9), 1.0))


MODELS = {"text": Text, "image": Image}

TEXT = {"r": 2, "lora_alpha": 6}
CONVS = {"r": 2, "lora_alpha": 6, "target_modules": ["conv1", "conv2", "conv3", "point"]}
FOLDERS = {
    "text-linear": ("text", {**TEXT, "target_modules": ["lin", "classifier"]}),
    "text-conv1d": ("text", {**TEXT, "target_modules": ["proj"], "fan_in_fan_out": True}),
    "text-mixed": ("text", {**TEXT, "target_modules": ["proj", "lin", "emb"], "use_rslora": True}),
    "text-modules-to-save": ("text", {**TEXT, "target_modules": ["lin"], "modules_to_save": ["classifier"]}),
    "text-bias-all": ("text", {**TEXT, "target_modules": ["proj", "lin"], "bias": "all"}),
    "text-bias-lora-only": ("text", {**TEXT, "target_modules": ["proj", "lin"], "bias": "lora_only"}),
    "text-patterns": ("text", {**TEXT, "target_modules": ["proj", "lin", "classifier"], "rank_pattern": {"lin": 3}, "alpha_pattern": {"proj|lin": 1}}),
    "text-dora": ("text", {**TEXT, "target_modules": ["emb", "proj", "lin"], "use_dora": True}),
    "text-lora-bias": ("text", {**TEXT, "target_modules": ["proj", "lin"], "lora_bias": True}),
    "text-tokens": ("text", {**TEXT, "target_modules": ["lin"], "trainable_token_indices": {"emb": [1, 4, 10]}}),
    "image-convs": ("image", CONVS),
    "image-dora": ("image", {**CONVS, "use_dora": True}),
    "image-lora-bias": ("image", {**CONVS, "lora_bias": True}),
    "image-bias-all": ("image", {**CONVS, "bias": "all", "modules_to_save": ["classifier"], "target_modules": ["conv2", "point"]}),
}


def build(kind):
    model = MODELS[kind]().double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(fill.tensor(f"{kind}.{name}", parameter.shape)))
    return model.eval()


def filled(model):
    """Trained parameters by the keys that PEFT saves them under; magnitudes near their start."""
    with torch.no_grad():
        for key, parameter in common.adapter_parameters(model).items():
            values = torch.from_numpy(fill.tensor(key, parameter.shape))
            if "magnitude" in key:
                values = parameter * (1 + 0.5 * values.reshape(parameter.shape))
            parameter.copy_(values)
    return model


def write_folder(name, kind, options):
    folder = common.GOLDENS / "peft" / "modules" / name
    model = filled(get_peft_model(build(kind), LoraConfig(**options)).double()).eval()
    common.save_adapter(model, folder)
    loaded = PeftModel.from_pretrained(build(kind), folder).double().eval()
    with torch.no_grad():
        output, base = loaded(MODELS[kind].input()), build(kind)(MODELS[kind].input())
    assert (output - base).abs().max() > 1e-3, name
    common.write_tensors(folder / "golden.safetensors", {"output": output})
    print(f"{name}: moves the output by up to {(output - base).abs().max():.3f}")


def check(kind, folder, out):
    model, only_file, only_peft = load_adapter(build(kind).float(), folder)
    with torch.no_grad():
        output = model.eval()(MODELS[kind].input().float() if kind == "image" else MODELS[kind].input())
    Path(out).write_text(json.dumps({"output": output.flatten().tolist()}))
    if only_file or only_peft:
        sys.exit(f"{folder}: keys only in the file {only_file}, keys only PEFT has {only_peft}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) == 4:
        check(*sys.argv[1:])
    else:
        for name, (kind, options) in FOLDERS.items():
            write_folder(name, kind, options)
