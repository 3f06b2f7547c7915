"""Sentence-transformers' vectors of a tiny BERT by pooling, module and setting: goldens/sentences/ (README.md).

The weights are those of goldens/families/bert, a hash of their names. Needs `pip install sentence-transformers`.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import common
import fill

TEXTS = ["low rank", "", "a", "Marta keeps the lighthouse 2 miles out", "THE SEA, the sea"]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
LETTERS = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?!"
OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules.pooling."


def older(*modes):
    names = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    return {"word_embedding_dimension": 32, **{f"pooling_mode_{name}": name in modes for name in names}}


def case(pooling, normalize=False, transformer=None, prompts=None, pooling_type=OLD + "Pooling"):
    modules = [("", OLD + "Transformer"), ("1_Pooling", pooling_type)]
    if normalize:
        modules.append(("2_Normalize", OLD + "Normalize"))
    files = {
        "modules.json": [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)],
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": transformer or {"max_seq_length": 16, "do_lower_case": False},
    }
    if prompts is not None:
        files["config_sentence_transformers.json"] = {
            "__version__": {"sentence_transformers": "3.0.0"},
            "prompts": prompts,
            "default_prompt_name": next(iter(prompts)),
        }
    return files


CASES = {
    "mean, normalised": case(older("mean_tokens"), normalize=True),
    "mean of long texts": case(older("mean_tokens"), transformer={"max_seq_length": None, "do_lower_case": False}),
    "short texts": case(older("mean_tokens"), transformer={"max_seq_length": 6, "do_lower_case": False}),
    "first token": case(older("cls_token")),
    "maximum": case(older("max_tokens")),
    "mean by the root of the length": case(older("mean_sqrt_len_tokens")),
    "weighted mean": case(older("weightedmean_tokens")),
    "last token": case(older("lasttoken")),
    "several": case(older("cls_token", "max_tokens", "mean_tokens"), normalize=True),
    "in the newer spelling": case(
        {"embedding_dimension": 32, "pooling_mode": "mean_sqrt_len_tokens", "include_prompt": True},
        pooling_type=NEW + "Pooling",
    ),
    "lower case": case(older("mean_tokens"), transformer={"max_seq_length": 16, "do_lower_case": True}),
    "a prompt": case(older("mean_tokens"), prompts={"query": "query: "}),
    "a prompt that is not pooled": case({**older("mean_tokens"), "include_prompt": False}, prompts={"query": "query: "}),
    "a prompt that is not pooled, by weight": case(
        {**older("weightedmean_tokens"), "include_prompt": False}, prompts={"query": "q: "}
    ),
}


def tokenizer():
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *LETTERS])}
    own = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=own, model_max_length=24, **names)


def main():
    golden = common.GOLDENS / "families" / "bert"
    shapes = json.loads((golden / "golden.json").read_text())["weights"]
    config = {**json.loads((golden / "config.json").read_text()), "architectures": ["BertModel"]}
    out = common.GOLDENS / "sentences"
    out.mkdir(exist_ok=True)
    vectors = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, files in CASES.items():
            place = Path(folder) / name
            (place / "1_Pooling").mkdir(parents=True)
            (place / "2_Normalize").mkdir()
            weights = {
                key.removeprefix("bert."): fill.uniform(key, shape, *fill.scale_of(key, shape)).astype(np.float32)
                for key, shape in shapes.items()
                if key.startswith("bert.")
            }
            save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
            (place / "config.json").write_text(json.dumps(config))
            tokenizer().save_pretrained(place)
            for path, content in files.items():
                (place / path).write_text(json.dumps(content))
            model = SentenceTransformer(str(place), device="cpu")
            vectors[name] = np.stack([model.encode(text) for text in TEXTS]).astype(np.float32)
        (out / "tokenizer.json").write_text((place / "tokenizer.json").read_text())
    save_file(vectors, out / "golden.safetensors")
    common.write_json(out / "golden.json", {"versions": common.versions(), "texts": TEXTS, "cases": CASES})


if __name__ == "__main__":
    main()
