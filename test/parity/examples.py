"""Losses of the programs in examples/ in PyTorch, transformers and PEFT, in float64: goldens/examples/ (README.md).

Each folder has the initial state of the program: a model's configuration, weights filled by their names, and an adapter
as saved by PEFT. Data is read from the example's own files.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BertConfig, BertModel

import common
import fill

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GOLDENS = common.GOLDENS / "examples"
STEPS, BATCH = 10, 4

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 220,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 340,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "tie_word_embeddings": False,
}


def rows_of(example, file):
    return [json.loads(line) for line in (EXAMPLES / example / file).read_text().splitlines()]


def tokenizer_of(name):
    return AutoTokenizer.from_pretrained(common.GOLDENS / "encodings" / name)


def filled(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(fill.tensor(name, parameter.shape)))
    return model.double()


def folder_of(example, config=None):
    folder = GOLDENS / example
    common.fresh(folder)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


def run(folder, model, weights, loss_of, lr, **lora):
    """Saves the initial adapter, and writes the losses of each step."""
    shapes = {name: list(p.shape) for name, p in weights.named_parameters()}
    model = common.add_adapter(model, r=4, lora_alpha=8, **lora)
    common.save_adapter(model, folder / "adapter")
    model.train()  # no dropout anywhere
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step in range(STEPS):
        loss = loss_of(model, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    common.write_json(folder / "golden.json", {"versions": common.versions(), "weights": shapes, "losses": losses})
    print(f"{folder.name}: {losses[0]:.6f} .. {losses[-1]:.6f}")


def batch_of(rows, step):
    first = step * BATCH % len(rows)
    return rows[first : first + BATCH]


def bert():
    return filled(BertModel(BertConfig(**{**BERT, "attn_implementation": "eager"}), add_pooling_layer=False))


def contrastive():
    folder = folder_of("contrastive", BERT)
    tokenizer, pairs, model = tokenizer_of("wordpiece"), rows_of("contrastive", "pairs.jsonl"), bert()

    def embed(m, texts):
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_token_type_ids=True, return_tensors="pt")
        mask = inputs["attention_mask"].double()[..., None]
        hidden = m(**inputs).last_hidden_state
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def loss_of(m, step):
        rows = batch_of(pairs, step)
        scores = embed(m, [r["question"] for r in rows]) @ embed(m, [r["answer"] for r in rows]).T
        return F.cross_entropy(scores / 0.05, torch.arange(len(rows)))

    run(folder, model, model, loss_of, 5e-3, task_type="FEATURE_EXTRACTION", target_modules=["query", "value"])


class Tagger(nn.Module):
    def __init__(self, encoder, tags):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, tags)

    def forward(self, **inputs):
        return self.head(self.encoder(**inputs).last_hidden_state)


def entity_tagging():
    tags = ["O", "B-person", "I-person", "B-place", "I-place"]
    folder = folder_of("entity-tagging", BERT)
    tokenizer, sentences, encoder = tokenizer_of("wordpiece"), rows_of("entity-tagging", "sentences.jsonl"), bert()
    model = Tagger(encoder, len(tags)).double()

    def label(row, start):
        unit = len(row["text"][:start].encode("utf-16-le")) // 2
        for one in row["entities"]:
            if one["start"] <= unit < one["end"]:
                return tags.index(("B-" if unit == one["start"] else "I-") + one["kind"])
        return 0

    def loss_of(m, step):
        rows = batch_of(sentences, step)
        inputs = tokenizer(
            [r["text"] for r in rows], padding=True, truncation=True, max_length=64,
            return_token_type_ids=True, return_offsets_mapping=True, return_tensors="pt",
        )
        offsets, labels = inputs.pop("offset_mapping"), []
        for b, row in enumerate(rows):
            words = inputs.word_ids(b)
            for t, word in enumerate(words):
                first = word is not None and (t == 0 or words[t - 1] != word)
                labels.append(label(row, offsets[b, t, 0]) if first else -100)
        return F.cross_entropy(m(**inputs).reshape(-1, len(tags)), torch.tensor(labels))

    run(
        folder, model, encoder, loss_of, 5e-3,
        task_type=None, target_modules=["query", "value"], modules_to_save=["head"],
    )


def dpo():
    folder = folder_of("dpo", LLAMA)
    tokenizer, preferences = tokenizer_of("roberta"), rows_of("dpo", "preferences.jsonl")

    def encode(prompt, completion):
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
        after = after + [LLAMA["eos_token_id"]]
        return before + after, [-100] * len(before) + after

    def log_probabilities(m, texts):
        T = max(len(ids) for ids, _ in texts)
        pad = lambda lists, value: torch.tensor([one + [value] * (T - len(one)) for one in lists])
        ids, labels = pad([i for i, _ in texts], 0), pad([l for _, l in texts], -100)
        mask = pad([[1] * len(i) for i, _ in texts], 0)
        logits = m(input_ids=ids, attention_mask=mask, use_cache=False).logits
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
        return -losses.sum(1)

    def loss_of(m, step):
        rows = batch_of(preferences, step)
        texts = [encode(r["prompt"], r[kind]) for kind in ("chosen", "rejected") for r in rows]
        policy = log_probabilities(m, texts)
        with torch.no_grad(), m.disable_adapter():
            reference = log_probabilities(m, texts)
        chosen, rejected = (policy - reference).split(len(rows))
        return -F.logsigmoid(0.1 * (chosen - rejected)).mean()

    with common.float64():
        model = common.build(folder)
        run(folder, model, model, loss_of, 5e-3, target_modules=["q_proj", "v_proj"])


class Block(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(4, out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(4, out)

    def forward(self, x):
        return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).relu()


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = Block(1, 8), Block(8, 16), Block(16, 16)
        self.up2, self.join2 = nn.ConvTranspose2d(16, 16, 2, stride=2), Block(32, 16)
        self.up1, self.join1 = nn.ConvTranspose2d(16, 8, 2, stride=2), Block(16, 8)
        self.head, self.pool = nn.Conv2d(8, 1, 1), nn.MaxPool2d(2)

    def forward(self, images):
        first = self.down1(images)
        second = self.down2(self.pool(first))
        joined = self.join2(torch.cat([self.up2(self.bottom(self.pool(second))), second], 1))
        return self.head(self.join1(torch.cat([self.up1(joined), first], 1)))


def segmentation():
    folder, model = folder_of("segmentation"), filled(UNet())

    def discs(first):
        image, y, x = np.meshgrid(np.arange(first, first + BATCH), np.arange(16), np.arange(16), indexing="ij")
        inside = (y - 4 - image * 7 % 9) ** 2 + (x - 4 - image * 5 % 9) ** 2 <= (2 + image % 3) ** 2
        stripes = (x * 3 + y * 5 + image * 2) % 8 / 16
        images = 1 - np.where(inside, 1 - stripes / 2, stripes)
        return tuple(torch.from_numpy(one[:, None].astype(np.float64)) for one in (images, inside))

    def loss_of(m, step):
        images, masks = discs(step * BATCH)
        return F.binary_cross_entropy_with_logits(m(images), masks)

    run(folder, model, model, loss_of, 2e-2, task_type=None, target_modules=["conv1", "conv2"])


if __name__ == "__main__":
    for example in (contrastive, entity_tagging, dpo, segmentation):
        example()
