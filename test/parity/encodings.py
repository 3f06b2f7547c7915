"""Encodings of transformers' tokenizers: goldens/encodings/ (README.md).

Pairs with token types, offsets, word ids, each truncation strategy, padding on either side. Tokenizers are trained on
the sentences below; the GGUF tokenizers are those of gguf_tokenizers.py, as read by transformers. Offsets are converted
from code points to UTF-16 units, as used by JavaScript. `--train` trains the tokenizers again.
"""

import json
import shutil
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
GOLDENS = HERE / "goldens" / "encodings"
GGUF = HERE / "goldens" / "gguf" / "tokenizers"

CORPUS = [
    "The whale swam past the harbour, and nobody in the harbour saw the whale.",
    "Berlin and Paris are cities; Ada Lovelace was born in London in 1815.",
    "naïve café owners don't drink crème brûlée at 12:30",
    "日本語のテキスト、中文。한국어 テキスト",
    "emoji 😀 and 👩‍👩‍👧 and 🇩🇪 done",
    "she sells sea shells by the sea shore, seashells surely",
]
TEXTS = [
    "Ada Lovelace was born in London.",
    "  two  spaces, and\ttabs\n",
    "naïve café, l'été à Genève",
    "日本語のテキスト、中文。한국어",
    "emoji 😀👩‍👩‍👧‍👦 done 🇩🇪 x",
    "a",
    "",
    "ﬁne ① Ⅻ \u00a0nbsp",
    "[SEP] </s> <|im_end|> inside",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠮷野家 seashells",
]
# Composed by a normalizer. A GGUF file does not mention Qwen2's, so only transformers applies it.
COMBINING = "cafe\u0301 o\u0308l"
PAIRS = TEXTS[3:] + TEXTS[:3]
LONG = ["the whale swam past the harbour and nobody saw it", "Ada 😀 was born in London", "sea shells by the sea shore"]
LONG_PAIRS = ["sea shore", "the harbour saw the whale 日本語 and nobody in Paris drank at 12:30", "Berlin and 👩‍👩‍👧 Paris"]

# Options of encodeBatch, and the equivalent ones of transformers' call.
BATCHES = [
    ({"padding": "longest"}, {"padding": "longest"}, False),
    ({"padding": "longest"}, {"padding": "longest"}, True),
    ({"padding": "longest", "addSpecialTokens": False}, {"padding": "longest", "add_special_tokens": False}, True),
    ({"maxLength": 8}, {"padding": "longest", "truncation": True, "max_length": 8}, False),
    ({"padding": "max_length", "maxLength": 24}, {"padding": "max_length", "truncation": True, "max_length": 24}, False),
    ({"padToMultipleOf": 8}, {"padding": "longest", "pad_to_multiple_of": 8}, True),
    ({"paddingSide": "left"}, {"padding": "longest", "padding_side": "left"}, True),
    ({"paddingSide": "right"}, {"padding": "longest", "padding_side": "right"}, False),
]
# Only for the longer texts, since a text may be too short to be truncated.
CUTS = [
    (strategy, length) for strategy in ("longest_first", "only_first", "only_second") for length in (13, 16, 18)
] + [("longest_first", 5)]


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=special, show_progress=False))
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_max_length": 64}


def roberta():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=340, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, {"pad_token": "<pad>", "truncation_side": "left"}


def prefixed():
    """Byte-level with a space before each text, which the offsets of a template's post-processor trim."""
    tokenizer, _ = roberta()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=True)
    return tokenizer, {"pad_token": "</s>", "padding_side": "left"}


def metaspace():
    """SentencePiece's pieces with a token for each byte, as in Llama 2."""
    space = "\u2581"
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=150, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += [t for t in sorted(model["vocab"], key=model["vocab"].get) if ord(t[0]) < 0x80 or t[0] == space]
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = [tuple(m) for m in model["merges"] if all(t in vocab for t in (*m, "".join(m)))]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")])
    return tokenizer, {"pad_token": "</s>", "padding_side": "left"}


def unigram():
    """A Unigram model with a normalizer that changes lengths, as in XLM-R."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    return tokenizer, {"pad_token": "<pad>"}


def units(text, offset):
    return [len(text[:place].encode("utf-16-le")) // 2 for place in offset]


def rows(tokenizer, texts, pairs, options):
    """A list for each row, of a list for each token."""
    out = tokenizer(texts, pairs, return_offsets_mapping=True, return_token_type_ids=True, return_attention_mask=True, **options)
    made = []
    for i in range(len(texts)):
        sequences = out.sequence_ids(i)
        offsets = [
            [0, 0] if sequence is None else units((pairs if sequence else texts)[i], offset)
            for offset, sequence in zip(out["offset_mapping"][i], sequences)
        ]
        made.append({
            "ids": out["input_ids"][i], "mask": out["attention_mask"][i], "types": out["token_type_ids"][i],
            "offsets": offsets, "words": out.word_ids(i), "sequences": sequences,
        })
    return made


def cases(tokenizer, special=True):
    made = []

    def case(texts, pairs, ours, theirs):
        if not special:
            ours, theirs = {**ours, "addSpecialTokens": False}, {**theirs, "add_special_tokens": False}
        made.append({"texts": texts, "pairs": pairs, "options": ours, "rows": rows(tokenizer, texts, pairs, theirs)})

    for ours, theirs, paired in BATCHES:
        case(TEXTS, PAIRS if paired else None, ours, theirs)
    if special:
        case([COMBINING], None, {}, {"padding": "longest"})
    for strategy, length in CUTS:
        for text, pair in zip(LONG, LONG_PAIRS):
            theirs = {"padding": "longest", "truncation": strategy, "max_length": length}
            try:
                case([text], [pair], {"truncation": strategy, "maxLength": length}, theirs)
            except Exception:  # the text is too short; a panic of the binding is a BaseException
                made.append({"texts": [text], "pairs": [pair], "options": {"truncation": strategy, "maxLength": length}, "refused": True})
    return made


if __name__ == "__main__":
    if "--train" in sys.argv:
        shutil.rmtree(GOLDENS, ignore_errors=True)
    result = {}
    for make in (wordpiece, roberta, prefixed, metaspace, unigram):
        name = make.__name__
        # Trainers break ties by hash order, so an existing tokenizer is kept.
        if not (GOLDENS / name).exists():
            tokenizer, config = make()
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, **config).save_pretrained(GOLDENS / name)
        result[name] = cases(AutoTokenizer.from_pretrained(GOLDENS / name))
        assert any(case.get("refused") for case in result[name]), name
    for name, special in (("gpt-2", False), ("llama-bpe", False), ("qwen2", False), ("llama-spm", True), ("gemma3-spm", True)):
        tokenizer = AutoTokenizer.from_pretrained(GGUF, gguf_file=f"{name}.gguf")
        tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
        result[f"gguf/{name}"] = cases(tokenizer, special)
    (GOLDENS / "cases.json").write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    for name, made in result.items():
        refused = sum(case.get("refused", False) for case in made)
        print(name, len(made), "cases,", refused, "refused")
