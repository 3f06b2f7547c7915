"""Goldens of chat masks: ids and assistant masks from transformers, with TRL's training templates (README.md)."""

import json
import tempfile
from pathlib import Path

import common  # before transformers: nothing here may depend on a download
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
CHAT = ROOT / "test" / "chat"

# Special tokens of each family, as in its tokenizer; Phi-3's consume the whitespace after them.
FAMILIES = json.loads((CHAT / "families.json").read_text())


def tokenizer_of(family):
    """The embedded model's tokenizer, with the family's special tokens."""
    tokenizer = json.loads((ROOT / "models" / "default" / "tokenizer.json").read_text())
    size = len(tokenizer["model"]["vocab"])
    for token in family["tokens"]:
        known = next((one for one in tokenizer["added_tokens"] if one["content"] == token), None)
        if known is None:
            tokenizer["added_tokens"].append({"id": size, "content": token, "single_word": False, "lstrip": False, "rstrip": family["rstrip"], "normalized": False, "special": True})
            size += 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(tokenizer))
        return PreTrainedTokenizerFast(tokenizer_file=str(path), **family["special"])


def main():
    conversations = json.loads((CHAT / "conversations.json").read_text())
    golden = {}
    for name, family in FAMILIES.items():
        template = (CHAT / "templates" / f"{name}_training.jinja").read_text()
        tokenizer = tokenizer_of(family)
        rows = []
        for conversation in conversations:
            out = tokenizer.apply_chat_template(conversation["messages"], chat_template=template, return_dict=True, return_assistant_tokens_mask=True)
            rows.append({"ids": out["input_ids"], "mask": out["assistant_masks"]})
        golden[name] = rows
    (common.GOLDENS / "chat_masks.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
