"""Goldens of user-defined models in PyTorch, in float64: the losses of a training run (README.md)."""

import json
from pathlib import Path

import torch
from torch import nn

import fill
from nn_layers import filled

GOLDENS = Path(__file__).resolve().parent / "goldens"
STEPS = 12
OPTIONS = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
CLASSES, VOCABULARY, BATCH, TIME = 5, 23, 4, 13


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 9, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(9),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(9 * 2 * 2, CLASSES)

    def forward(self, x):
        return self.head(self.features(x))


class Block(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.ln1 = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.ln2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x):
        y = self.ln1(x)
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        x = x + self.attention(y, y, y, attn_mask=hidden, need_weights=False)[0]
        return x + self.mlp(self.ln2(x))


class CharTransformer(nn.Module):
    def __init__(self, channels=16, heads=2, layers=2):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, channels)
        self.positions = nn.Embedding(TIME, channels)
        self.blocks = nn.ModuleList([Block(channels, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, VOCABULARY, bias=False)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LSTMLanguageModel(nn.Module):
    def __init__(self, channels=12, hidden=17):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, channels)
        self.lstm = nn.LSTM(channels, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, VOCABULARY)

    def forward(self, ids):
        return self.head(self.lstm(self.tokens(ids))[0])


MODELS = {"cnn": CNN, "char_transformer": CharTransformer, "lstm": LSTMLanguageModel}


def integers(name, shape, below):
    return torch.from_numpy(fill.integers(name, shape, below)).long()


def batch_of(name, step):
    """Inputs and targets; a language model's target is the next token."""
    if name == "cnn":
        return filled(f"cnn.{step}.x", [BATCH, 2, 8, 8]), integers(f"cnn.{step}.y", [BATCH], CLASSES)
    ids = integers(f"{name}.{step}.ids", [BATCH, TIME + 1], VOCABULARY)
    return ids[:, :-1], ids[:, 1:]


def losses_of(name):
    model = MODELS[name]().double()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(filled(f"{name}.{key}", parameter.shape))
    optimizer = torch.optim.AdamW(model.parameters(), **OPTIONS)
    losses = []
    for step in range(STEPS):
        inputs, targets = batch_of(name, step)
        optimizer.zero_grad()
        logits = model(inputs)
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    losses = {name: losses_of(name) for name in MODELS}
    text = json.dumps({"torch": torch.__version__, "losses": losses}, indent=1)
    (GOLDENS / "own_models.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
