"""Tokenizers as the metadata of GGUF files, and their ids: goldens/gguf/tokenizers/.

Each is trained on this repository's README, with the pre-tokenizer of the published model after which its kind is
named. The ids are those of the trained tokenizer itself. For kinds that transformers supports, the ids of transformers'
reading of the file are asserted to be equal.
"""

import json
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent
GOLDENS = HERE / "goldens" / "gguf" / "tokenizers"
TEXT = (HERE.parent.parent / "README.md").read_text().splitlines()[:200]
CONTROL, USER, NORMAL, UNKNOWN, BYTE = 3, 4, 1, 2, 6
SPECIAL = ["<|end|>", "<|im_start|>", "<|im_end|>"]

TEXTS = [
    "Hello world, it's 2024!",
    "  two  spaces\n\nand\tlines\r\n  more\n",
    "naïve café, ÆØÅ, ÉCOLE d'Été",
    "日本語のテキスト、中文。한국어",
    "emoji 😀👩‍👩‍👧‍👦 done",
    "def f(x):\n    return x**2 # π≈3.14159\n",
    "<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\n",
    "12345678 1,000.50 ٣٤٥ ½",
    "don't you'll WE'RE CamelCaseWORDS xHTML",
    "",
    " ",
    " leading and trailing ",
    "a/b//c\r\n\r\n/d",
    "\u00a0nbsp\u200bzero <think>hm</think>",
]

ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + ENDS
)
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + ENDS
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + ENDS
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + ENDS
)
byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def pieces(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# By `tokenizer.ggml.pre`; and whether transformers splits in the same way.
BYTE_LEVEL = {
    "gpt-2": (byte_level, True),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]), False),
    "llama-bpe": (pieces(LLAMA3), True),
    "qwen2": (pieces(QWEN2), True),
    "tekken": (pieces(TEKKEN), True),
    "gpt-4o": (pieces(GPT4O), True),
}


def written(name, arch, fill):
    file = GOLDENS / f"{name}.gguf"
    writer = gguf.GGUFWriter(file, arch)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def read_by_transformers(file):
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def byte_level_golden(pre):
    cut, known = BYTE_LEVEL[pre]
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre in ("llama-bpe", "tekken")))
    tokenizer.pre_tokenizer = cut
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    saved = json.loads(tokenizer.to_str())
    vocab = dict(saved["model"]["vocab"]) | {"<think>": len(saved["model"]["vocab"])}
    tokens = sorted(vocab, key=vocab.get)
    if pre == "llama-bpe":
        special = [("<|end|>", 0)]
        tokenizer.post_processor = processors.TemplateProcessing(single="<|end|> $A", special_tokens=special)

    def fill(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        types = [CONTROL if t in SPECIAL else USER if t == "<think>" else NORMAL for t in tokens]
        writer.add_token_types(types)
        writer.add_token_merges([" ".join(merge) for merge in saved["model"]["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(vocab["<|im_end|>"])
        # Omitted for one: its kind adds it at the start of texts.
        if pre != "llama-bpe":
            writer.add_add_bos_token(False)
        writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")

    file = written(pre, "qwen2" if pre == "qwen2" else "llama", fill)
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    if known:
        other = read_by_transformers(file)
        own = [other.encode(text, add_special_tokens=False) for text in TEXTS]
        plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
        assert own == plain, (pre, [(t, a, b) for t, a, b in zip(TEXTS, own, plain) if a != b][:2])
    return ids


def sentencepiece_golden(arch):
    """The merges of a trained vocabulary as scores, with a token for each byte."""
    space, gemma = "\u2581", arch == "gemma3"
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", space)
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(f"{space}*[^{space}]*"), behavior="isolated")
    trained.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    vocab = json.loads(trained.to_str())["model"]["vocab"]
    normal = sorted(vocab, key=vocab.get)
    # Created by merges: the most frequent ones come first.
    tokens = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"] + [f"<0x{b:02X}>" for b in range(256)]
    types = [UNKNOWN, CONTROL, CONTROL, CONTROL, CONTROL] + [BYTE] * 256
    first = len(tokens)
    tokens, types = tokens + normal, types + [NORMAL] * len(normal)
    scores = [0.0] * first + [-float(i) for i in range(len(normal))]
    if gemma:
        tokens, types, scores = tokens + ["  ", "   "], types + [USER, USER], scores + [-1000.0, -1000.0]

    def fill(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_scores(scores)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(not gemma)

    file = written(f"{arch}-spm", arch, fill)
    return [read_by_transformers(file).encode(text) for text in TEXTS]


if __name__ == "__main__":
    GOLDENS.mkdir(parents=True, exist_ok=True)
    ids = {pre: byte_level_golden(pre) for pre in BYTE_LEVEL}
    ids |= {f"{arch}-spm": sentencepiece_golden(arch) for arch in ("llama", "gemma3", "phi3")}
    (GOLDENS / "ids.json").write_text(json.dumps({"texts": TEXTS, "ids": ids}, ensure_ascii=True) + "\n")
