"""Computes the logits of transformers and PEFT with an adapter folder, to check folders written by lowrank.

    python adapter_logits.py MODEL_DIR ADAPTER_DIR INPUTS.json OUT.json

INPUTS.json is [[id, ...], ...], or an object with the model's inputs, such as {"pixel_values": ...}; the model's class
comes from the configuration's architectures. OUT.json gets {"logits": ..., "onlyInFile": [key], "onlyInPeft": [key]};
the last two compare the folder's keys with the keys that PEFT would save. ADAPTER_DIR `-` means the model alone.
Fails if a key of the model or of the adapter is missing or unexpected. OUT.json is written even if only the two lists
differ, since PEFT's load_result does not report biases.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoConfig


# With bias="all" and modules_to_save PEFT saves these copies of biases by mistake; lowrank must not.
SPURIOUS = (".original_module.bias", ".modules_to_save.bias")


def load_base(folder):
    (architecture,) = AutoConfig.from_pretrained(folder).architectures
    model, info = getattr(transformers, architecture).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    bad = {k: sorted(map(str, info[k])) for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[k]}
    if bad:
        sys.exit(f"{folder}: {bad}")
    return model


def load_adapter(base, folder):
    # The two steps of PeftModel.from_pretrained, which does not return load_adapter's result.
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = True
    model = get_peft_model(base, config)
    result = model.load_adapter(folder, "default")
    bad = {k: list(getattr(result, k)) for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if getattr(result, k, None)}
    if bad:
        sys.exit(f"{folder}: {bad}")
    with safe_open(Path(folder) / "adapter_model.safetensors", "pt") as file:
        held = set(file.keys())
    expected = {k for k in get_peft_model_state_dict(model) if not k.endswith(SPURIOUS)}
    held = {k for k in held if not k.endswith(SPURIOUS)}
    return model, sorted(held - expected), sorted(expected - held)


def main(model_dir, adapter_dir, inputs_path, out_path):
    model, only_file, only_peft = load_base(model_dir), [], []
    if adapter_dir != "-":
        model, only_file, only_peft = load_adapter(model, adapter_dir)
    model.eval()
    given = json.loads(Path(inputs_path).read_text())
    inputs = given if isinstance(given, dict) else {"input_ids": given}
    with torch.no_grad():
        logits = model(**{name: torch.tensor(values) for name, values in inputs.items()}).logits
    if not torch.isfinite(logits).all():
        sys.exit("the logits are not finite")
    Path(out_path).write_text(
        json.dumps({"logits": logits.tolist(), "onlyInFile": only_file, "onlyInPeft": only_peft})
    )
    if only_file or only_peft:
        sys.exit(f"{adapter_dir}: keys only in the file {only_file}, keys only PEFT has {only_peft}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
