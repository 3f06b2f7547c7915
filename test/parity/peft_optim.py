"""Losses of LoRA+ and LoRA-FA in PEFT (README.md)."""

import warnings

import torch
from peft.optimizers import create_loraplus_optimizer, create_lorafa_optimizer
from peft.optimizers import lorafa

import common
import llama

MODEL = "untied-llama3"
STEPS = 6
PLUS = {"lr": 2e-3, "loraplus_lr_ratio": 8.0, "loraplus_lr_embedding": 1e-3}
FA = {"r": 3, "lora_alpha": 6, "lr": 2e-3}


def losses_of(options, make):
    ids, labels = llama.base_batch(MODEL)
    model = common.add_adapter(common.build(llama.folder_of(MODEL)), **options)
    optimizer = make(model)
    losses = []
    for _ in range(STEPS):
        loss = common.loss_of(model(input_ids=common.ids_of(ids), use_cache=False).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0] - 0.05, losses
    return losses


def plus(model):
    return create_loraplus_optimizer(model, torch.optim.AdamW, eps=1e-8, **PLUS)


def fa(model):
    # PEFT multiplies in bfloat16 if available, for any dtype of the model; the golden is the step without that rounding.
    lorafa.is_bf16_available = lambda: False
    optimizer = create_lorafa_optimizer(model, **FA)
    # It adds eps before the correction of the second moment, so eps is small enough to have no effect.
    optimizer.param_groups[0]["eps"] = 1e-8
    return optimizer


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with common.float64():
        plus_options = {"r": 3, "lora_alpha": 6, "target_modules": ["embed_tokens", "q_proj", "v_proj"], "bias": "lora_only"}
        fa_options = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "rank_pattern": {"v_proj": 2}}
        goldens = {
            "versions": common.versions(),
            "loraPlus": {"options": plus_options, "optimizer": PLUS, "losses": losses_of(plus_options, plus)},
            "loraFA": {"options": fa_options, "optimizer": FA, "losses": losses_of(fa_options, fa)},
        }
    common.write_json(common.GOLDENS / "peft_optim.json", goldens)
    print(goldens["loraPlus"]["losses"], goldens["loraFA"]["losses"])
