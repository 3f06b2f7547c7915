"""Goldens of prompts and completions in chat templates: texts from mlx-lm's CompletionsDataset and TRL's apply_chat_template (README.md)."""

import json

import common  # before transformers: nothing here may depend on a download
from chat_masks import CHAT, FAMILIES, tokenizer_of
from jinja2.exceptions import TemplateError
from mlx_lm.tuner.datasets import CompletionsDataset
from trl.data_utils import apply_chat_template

# Qwen3's template with ChatML's tokens; the other templates have their family's.
TEMPLATES = {**FAMILIES, "qwen3": FAMILIES["qwen2_5"]}


class Characters:
    """A tokenizer with one token per character, so that the dataset's ids are a text and its offset is a position in it."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages, tools=None, return_dict=False, **options):
        assert not return_dict
        return list(self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options))


def by_mlx(row, tokenizer):
    """The text of a row, split where training begins."""
    if isinstance(row["prompt"], list):
        return None  # mlx-lm reads texts only
    dataset = CompletionsDataset([row], Characters(tokenizer), "prompt", "completion", mask_prompt=True)
    text, offset = dataset.process(row)
    return {"prompt": "".join(text[:offset]), "completion": "".join(text[offset:])}


def by_trl(row, tokenizer):
    """The same; texts become messages, since TRL applies the template to messages only."""
    messages = {
        name: row[name] if isinstance(row[name], list) else [{"role": role, "content": row[name]}]
        for name, role in (("prompt", "user"), ("completion", "assistant"))
    }
    try:
        return apply_chat_template(messages, tokenizer)
    except TemplateError as error:
        return {"refused": str(error)}


def main():
    rows = json.loads((CHAT / "prompts.json").read_text())
    golden = {}
    for name, family in TEMPLATES.items():
        tokenizer = tokenizer_of(family)
        tokenizer.chat_template = (CHAT / "templates" / f"{name}.jinja").read_text()
        golden[name] = [{"mlx": by_mlx(row, tokenizer), "trl": by_trl(row, tokenizer)} for row in rows]
    (common.GOLDENS / "chat_prompts.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
