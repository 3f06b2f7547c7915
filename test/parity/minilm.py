"""Goldens of all-MiniLM-L6-v2 on real weights: `python minilm.py MODEL_DIR` (README.md)."""

import json
import sys

import torch
from transformers import AutoModel, AutoTokenizer

import common

SENTENCES = [
    "The cat sits outside.",
    "A man is playing guitar on a crowded street.",
    "I love pasta, but only with too much garlic.",
    "The new movie is awesome; the book was better.",
    "Low-rank adaptation freezes the weights of a pretrained model.",
    "LOW-RANK ADAPTATION FREEZES THE WEIGHTS OF A PRETRAINED MODEL!",
    "Zürich, São Paulo, Kraków and Tromsø are cities.",
    "今日は良い天気ですね。",
    "Съешь ещё этих мягких французских булок.",
    "مرحبا بالعالم",
    "3.14159 is not 22/7, e-mail me at nobody@example.org",
    "antidisestablishmentarianism floccinaucinihilipilification",
    "🙂 emoji 🚀 are unknown tokens",
    "   spaces\tand\nlines   are\r\nfolded   ",
    "a",
    "",
    "[SEP] a special token in the text [MASK]",
    "It was the best of times, it was the worst of times, it was the age of wisdom. " * 4,
    "Whales are mammals. " * 12,
    "A text far longer than the model takes loses its end. " * 80,
]


def main(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64).eval()
    ids, mean, first = [], [], []
    for sentence in SENTENCES:
        batch = tokenizer([sentence], truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state[0]
        ids.append(batch["input_ids"][0].tolist())
        mean.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
        first.append(hidden[0])
    common.write_tensors(common.GOLDENS / "minilm.safetensors", {"mean": torch.stack(mean), "cls": torch.stack(first)})
    common.write_json(common.GOLDENS / "minilm.json", {"versions": common.versions(), "sentences": SENTENCES, "ids": ids})


if __name__ == "__main__":
    main(sys.argv[1])
