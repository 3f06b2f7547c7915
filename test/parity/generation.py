"""Goldens of generation: greedy tokens of tiny models, and the results of transformers' processors (README.md)."""

import json

import numpy as np
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import common
import families
import fill

# Prompts of several lengths; the longest exceeds the window of the Mistral.
PROMPTS = {"llama-tied": (3, 9, 1, 17), "llama-untied-llama3": (5, 12, 2), "llama-mistral": (4, 15, 9), "llama-qwen2": (6, 11), "llama-qwen3": (8, 13, 21), "llama-gemma3": (7, 12), "llama-phi3": (5, 14), "gpt2": (2, 7, 5)}
NEW = {"llama-tied": 24, "llama-untied-llama3": 24, "llama-mistral": 24, "llama-qwen2": 24, "llama-qwen3": 24, "llama-gemma3": 24, "llama-phi3": 24, "gpt2": 16}
PENALTIES = (1.0, 1.4)

# In the order of transformers' own list; 0, 1 and 1 disable top-k, top-p and the penalty.
CUTS = [
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 1.9},
    {"temperature": 1.0, "topK": 10},
    {"temperature": 1.0, "topP": 0.8},
    {"temperature": 1.0, "minP": 0.1},
    {"temperature": 1.3, "topK": 30, "topP": 0.9},
    {"temperature": 1.5, "topK": 40, "topP": 0.95, "minP": 0.05},
    {"temperature": 0.9, "repetitionPenalty": 1.5, "topP": 0.9},
]


def model_of(name):
    return families.build(name) if name == "gpt2" else common.build(common.GOLDENS / name)


def greedy(name):
    with common.float64():
        model = model_of(name)
        texts = []
        for i, length in enumerate(PROMPTS[name]):
            prompt = fill.integers(f"generation/{name}/{i}", (1, length), common.VOCAB - 3) + 3
            for penalty in PENALTIES:
                out = model.generate(
                    common.ids_of(prompt),
                    attention_mask=torch.ones(1, length, dtype=torch.int64),
                    do_sample=False,
                    max_new_tokens=NEW[name],
                    repetition_penalty=penalty,
                    pad_token_id=0,
                    output_scores=True,
                    return_dict_in_generate=True,
                )
                tokens = out.sequences[0, length:].tolist()
                # With a near tie the test would depend on rounding.
                for score in out.scores:
                    two = score[0].topk(2).values
                    assert two[0] - two[1] > 1e-4 * two[0].abs(), (name, i)
                if tokens[-1] in np.atleast_1d(model.config.eos_token_id):
                    tokens.pop()
                texts.append({"prompt": prompt[0].tolist(), "repetitionPenalty": penalty, "tokens": tokens})
    return texts


def kept(cut):
    """Probabilities after the processors, in float64; the prompt is the first 20 tokens."""
    logits = torch.from_numpy(fill.uniform("generation/logits", (1, common.VOCAB), 4.0)).double()
    prompt = torch.arange(20)[None]
    processors = LogitsProcessorList()
    if "repetitionPenalty" in cut:
        processors.append(RepetitionPenaltyLogitsProcessor(cut["repetitionPenalty"]))
    processors.append(TemperatureLogitsWarper(cut["temperature"]))
    if "topK" in cut:
        processors.append(TopKLogitsWarper(cut["topK"]))
    if "topP" in cut:
        processors.append(TopPLogitsWarper(cut["topP"]))
    if "minP" in cut:
        processors.append(MinPLogitsWarper(cut["minP"]))
    return processors(prompt, logits.clone()).softmax(-1)[0].tolist()


def main():
    golden = {
        "greedy": {name: greedy(name) for name in PROMPTS},
        "kept": [{"options": cut, "probabilities": kept(cut)} for cut in CUTS],
    }
    path = common.GOLDENS / "generation.json"
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
