"""One LoRA training step of PyTorch + PEFT on a model of SmolLM2-135M's shape, timed.

    python peer_step.py [--steps N] [--rows 1] [--length 512] [--rank 16] [--checkpointing]
        [--base f32|bf16] [--adapters f32|bf16]

A warm-up step, then a line {"ready": true, ...}. Then, for each line read from stdin, one step and a line
{"ms", "peakMiB", "loss"}, so that a driver can alternate with another program. Ends after N steps or with stdin.
"""

import argparse

import peer


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=1000)
    options.add_argument("--rows", type=int, default=1)
    options.add_argument("--length", type=int, default=512)
    options.add_argument("--rank", type=int, default=16)
    options.add_argument("--checkpointing", action="store_true")
    options.add_argument("--base", choices=["f32", "bf16"], default="f32")
    options.add_argument("--shape", choices=peer.SHAPES, default="smollm2-135m")
    options.add_argument("--adapters", choices=["f32", "bf16"], default="f32")
    args = options.parse_args()

    import torch
    from peft import LoraConfig, get_peft_model

    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16}
    model = get_peft_model(
        peer.model(args.shape).to(dtypes[args.base]),
        LoraConfig(
            task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank, lora_dropout=0.0,
            target_modules=peer.LINEARS,
        ),
        autocast_adapter_dtype=args.adapters == "f32",
    )
    model.train()
    if args.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    ids = torch.randint(0, peer.SHAPES[args.shape][0], (args.rows, args.length))

    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    peer.race_steps(peer.stepper(model, ids), args.steps, trainable=trainable)


if __name__ == "__main__":
    main()
