"""Shared by the peers of a race: the model, and taking a turn for each line on stdin."""

import json
import os
import sys
import time

# Set on some machines for old OpenBLAS builds; they would slow this side of the race.
for name in [n for n in os.environ if n.startswith("OPENBLAS_")]:
    del os.environ[name]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

VOCAB = 49152
# Vocabulary, width, inner width, layers, heads, key heads.
SHAPES = {
    "smollm2-135m": (VOCAB, 576, 1536, 30, 9, 3),
    "llama-3.2-1b": (128256, 2048, 8192, 16, 32, 8),
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def model(shape="smollm2-135m"):
    """Makes a model of a published shape with random float32 weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    vocab, width, inner, layers, heads, key_heads = SHAPES[shape]
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=key_heads, max_position_embeddings=8192,
            rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        )
    ).float()


def peak_mib():
    """Returns the peak of the resident set so far; None if the system has no /proc."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return None


def say(value):
    print(json.dumps(value), flush=True)


def stepper(model, ids):
    """Returns a training step: forward, backward, clipping and AdamW on the trainable parameters of `model`."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=0.01)

    def step():
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.item()}

    return step


def race_steps(step, count, **facts):
    """Precedes the timed step of each turn by an untimed one, as in a run."""
    race(step, count, before=step, **facts)


def race(turn, count, before=None, **facts):
    """Takes a turn for each line on stdin; `before` runs first in each turn, untimed."""
    import torch
    import transformers

    turn()
    say({
        "ready": True, "torch": torch.__version__, "transformers": transformers.__version__,
        "threads": torch.get_num_threads(), **facts,
    })
    for _ in range(count):
        if not sys.stdin.readline():
            return
        if before:
            before()
        start = time.perf_counter()
        result = turn()
        say({"ms": (time.perf_counter() - start) * 1000, "peakMiB": peak_mib(), **result})
