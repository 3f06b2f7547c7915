"""One LoRA training step of PyTorch + PEFT on a model of SmolLM2-135M's shape, timed.

    python peer_step.py [--steps N] [--tokens 512] [--rank 16]

A warm-up step, then a line {"ready": true, ...}. Then, for each line read from stdin, one step and a line
{"ms", "peakMiB", "loss"}; so a driver may take turns with another program. Ends after N steps or with stdin.
"""

import argparse

import peer


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--tokens", type=int, default=512)
    options.add_argument("--rank", type=int, default=16)
    args = options.parse_args()

    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        peer.model(),
        LoraConfig(
            task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank, lora_dropout=0.0,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        ),
    )
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=0.01)
    ids = torch.randint(0, peer.VOCAB, (1, args.tokens))

    def step():
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.item()}

    peer.race(step, args.steps, trainable=sum(p.numel() for p in parameters), tokens=args.tokens)


if __name__ == "__main__":
    main()
