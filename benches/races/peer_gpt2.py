"""One training step of GPT-2 small, r 4 on every c_attn, 4 x 256 tokens, timed.

    python peer_gpt2.py loralib|peft [--steps N]

loralib: MergedLinear on queries and values, as in the paper's code; peft: the whole of c_attn. Turns as in peer.py.
"""

import argparse

import peer

VOCAB, ROWS, LENGTH, R, ALPHA = 50257, 4, 256, 4, 32


def with_loralib(model):
    import loralib

    for block in model.transformer.h:
        base = block.attn.c_attn
        merged = loralib.MergedLinear(
            768, 2304, r=R, lora_alpha=ALPHA, enable_lora=[True, False, True], fan_in_fan_out=True, merge_weights=False
        )
        merged.weight.data, merged.bias.data = base.weight.data, base.bias.data
        block.attn.c_attn = merged
    loralib.mark_only_lora_as_trainable(model)
    return model


def with_peft(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(task_type="CAUSAL_LM", r=R, lora_alpha=ALPHA, target_modules=["c_attn"], fan_in_fan_out=True),
    )


def main():
    options = argparse.ArgumentParser()
    options.add_argument("peer", choices=["loralib", "peft"])
    options.add_argument("--steps", type=int, default=1000)
    args = options.parse_args()

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0))
    model = {"loralib": with_loralib, "peft": with_peft}[args.peer](base)
    model.train()
    ids = torch.randint(0, VOCAB, (ROWS, LENGTH))
    peer.race_steps(peer.stepper(model, ids), args.steps)


if __name__ == "__main__":
    main()
