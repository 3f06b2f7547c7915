"""From process start to the end of a first LoRA step, by PyTorch + PEFT.

    python peer_start.py FOLDER

Prints {"loss", "peakMiB"} and exits.
"""

import sys

import peer

LENGTH = 512


def main():
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=peer.LINEARS))
    model.train()
    ids = torch.randint(0, peer.VOCAB, (1, LENGTH))
    peer.say({**peer.stepper(model, ids)(), "peakMiB": peer.peak_mib()})


if __name__ == "__main__":
    main()
