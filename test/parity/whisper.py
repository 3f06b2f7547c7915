"""Goldens of a tiny Whisper: encoder, logits, loss, ten LoRA steps, greedy tokens (README.md)."""

import json

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoConfig, GenerationConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

import common
import fill

FOLDER = common.GOLDENS / "whisper"
START, TRANSLATE, TRANSCRIBE, NO_TIMES, END = 90, 93, 94, 95, 45
LANGUAGES = {code: 60 + i for i, code in enumerate("fr de en es it ja ko zh ru pl nl sv fi da el hu cs tr ar he hi th vi uk".split())}

# All sizes of the two halves differ, so that neither can replace the other.
CONFIG = {
    "activation_dropout": 0.0,
    "activation_function": "gelu",
    "architectures": ["WhisperForConditionalGeneration"],
    "attention_dropout": 0.0,
    "begin_suppress_tokens": [7, END],
    "bos_token_id": END,
    "d_model": 32,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 40,
    "decoder_layers": 3,
    "decoder_start_token_id": START,
    "dropout": 0.0,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "encoder_layers": 2,
    "eos_token_id": END,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_source_positions": 50,
    "max_target_positions": 24,
    "model_type": "whisper",
    "num_hidden_layers": 2,
    "num_mel_bins": 12,
    "pad_token_id": END,
    "suppress_tokens": [],
    "torch_dtype": "float32",
    "transformers_version": "4.40.0",
    "vocab_size": common.VOCAB,
}

GENERATION = {
    "begin_suppress_tokens": [7, END],
    "bos_token_id": END,
    "decoder_start_token_id": START,
    "eos_token_id": END,
    "forced_decoder_ids": [[1, None], [2, TRANSCRIBE]],
    "is_multilingual": True,
    "lang_to_id": {f"<|{code}|>": token for code, token in LANGUAGES.items()},
    "max_length": 24,
    "no_timestamps_token_id": NO_TIMES,
    "pad_token_id": END,
    "return_timestamps": False,
    "suppress_tokens": [1, 2, 50, 51, START, *LANGUAGES.values(), TRANSLATE, TRANSCRIBE, NO_TIMES],
    "task_to_id": {"translate": TRANSLATE, "transcribe": TRANSCRIBE},
}
ENGLISH = {k: v for k, v in GENERATION.items() if k not in ("lang_to_id", "task_to_id", "forced_decoder_ids")} | {
    "forced_decoder_ids": [[1, NO_TIMES]],
    "is_multilingual": False,
}

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": None}
STEPS, WARMUP = 10, 2
ADAMW = {"lr": 5e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
CLIP = 1.0
TEXTS = 8
NEW = 20


def build(dtype=torch.float64):
    config = AutoConfig.from_pretrained(FOLDER)
    config._name_or_path = ""
    config._attn_implementation = "eager"
    model = WhisperForConditionalGeneration(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # the head is the embedding, which is listed once
            parameter.copy_(torch.from_numpy(fill.tensor(name, parameter.shape)))
    return model.eval()


def features_of(key, rows=2):
    """[rows, mels, frames], derived from the key, so that no file contains them."""
    return fill.uniform(f"whisper/{key}", (rows, CONFIG["num_mel_bins"], 2 * CONFIG["max_source_positions"]), 1.5)


def batch(key):
    labels = fill.integers(f"whisper/{key}/labels", (2, 9), common.VOCAB)
    labels[0, 2], labels[1, 6:] = common.IGNORE, common.IGNORE
    return torch.from_numpy(features_of(key)), labels


def loss_of(model, key):
    features, labels = batch(key)
    return model(input_features=features, labels=common.ids_of(labels), use_cache=False).loss


def train(tensors):
    model = common.add_adapter(build(), **LORA)
    common.save_adapter(model, FOLDER / "adapter-init")
    features, labels = batch("base")
    with torch.no_grad():
        tensors["adapter_init_logits"] = model(input_features=features, labels=common.ids_of(labels)).logits
    model.train()  # no dropout anywhere

    def loss_of_step(step):
        tensors[f"step.{step}.labels"] = batch(f"step.{step}")[1]
        return loss_of(model, f"step.{step}")

    named = common.adapter_parameters(model)
    training = common.train_steps(named, loss_of_step, tensors, STEPS, WARMUP, ADAMW, CLIP)
    common.save_adapter(model.eval(), FOLDER / "adapter")
    loaded = PeftModel.from_pretrained(build(), FOLDER / "adapter").double().eval()
    with torch.no_grad():
        tensors["adapter_logits"] = loaded(input_features=features, labels=common.ids_of(labels)).logits
    print(f"losses {training['losses'][0]:.4f} .. {training['losses'][-1]:.4f}")
    return training


def audio_of(key, length):
    """Noise that swells and fades, as float32."""
    noise = fill.uniform(f"whisper/{key}/audio", (length,), 0.3)
    return (noise * np.abs(1 - 2 * np.arange(length) / length)).astype(np.float32)


def generated(model, generation, features, **options):
    """Tokens after the initial ones and before the end, checked to have no near tie."""
    model.generation_config = GenerationConfig(**generation)
    out = model.generate(
        features, max_new_tokens=NEW, output_scores=True, return_dict_in_generate=True, do_sample=False, **options
    )
    sequence = out.sequences[0].tolist()
    tokens = sequence[len(sequence) - len(out.scores) :]
    for score in out.scores:
        two = score[0].topk(2).values
        assert two[0] - two[1] > 1e-4 * two[0].abs(), options
    if tokens[-1] == END:
        tokens.pop()
    return {"prefix": sequence[: len(sequence) - len(out.scores)], "tokens": tokens}


def transcriptions():
    """A text for each set of initial tokens, from features by key and from audio by key and length."""
    model = build()
    extractor = WhisperFeatureExtractor(feature_size=12, chunk_length=1)
    texts, languages, ended = [], set(), set()
    for i in range(TEXTS):
        length = 0 if i < TEXTS // 2 else 3000 + 2600 * (i - TEXTS // 2)
        key = f"text.{i}"
        if length == 0:
            features = torch.from_numpy(features_of(key, 1))
        else:
            given = extractor(audio_of(key, length), sampling_rate=16000, return_tensors="pt").input_features
            features = given.double()
        for name, generation, options in (
            ("multilingual", GENERATION, {"language": "german", "task": "translate"}),
            ("multilingual", GENERATION, {"language": "fr"}),
            ("multilingual", GENERATION, {}),
            ("english", ENGLISH, {}),
        ):
            text = generated(model, generation, features, **options)
            if not options and name == "multilingual":
                languages.add(text["prefix"][1])
            ended.add(len(text["tokens"]) < NEW)
            texts.append({"key": key, "length": length, "generation": name, "options": options, **text})
        free = {k: v for k, v in ENGLISH.items() if k not in ("suppress_tokens", "begin_suppress_tokens")}
        loose = {**free, "suppress_tokens": None, "begin_suppress_tokens": None}
        texts[-1]["suppressed"] = generated(model, loose, features)["tokens"] != texts[-1]["tokens"]
    assert len(languages) > 1, languages
    assert ended == {True, False}, ended
    assert any(text.get("suppressed") for text in texts)
    return texts


def main():
    common.fresh(FOLDER)
    (FOLDER / "config.json").write_text(json.dumps(CONFIG, indent=2, sort_keys=True) + "\n")
    model = build()
    features, labels = batch("base")
    with torch.no_grad():
        out = model(input_features=features, labels=common.ids_of(labels), use_cache=False)
        hidden = model.model(input_features=features, decoder_input_ids=common.ids_of(shifted(labels))).last_hidden_state
        given = model(input_features=features, decoder_input_ids=common.ids_of(shifted(labels))).logits
    assert torch.equal(given, out.logits)
    single = build(torch.float32)
    with torch.no_grad():
        logits = single(input_features=features.float(), labels=common.ids_of(labels)).logits.double()
    error = ((logits - out.logits).abs().max() / out.logits.abs().max()).item()
    assert error < 2e-5, error
    print(f"loss {out.loss.item():.6f}, float32 differs by {error:.1e}")
    tensors = {"labels": labels, "encoded": out.encoder_last_hidden_state, "hidden": hidden, "logits": out.logits}
    result = {
        "versions": common.versions(),
        "weights": {name: list(p.shape) for name, p in model.named_parameters()},
        "loss": out.loss.item(),
        "training": train(tensors),
        "generation": {"multilingual": GENERATION, "english": ENGLISH},
        "texts": transcriptions(),
    }
    common.write_tensors(FOLDER / "golden.safetensors", tensors)
    common.write_json(FOLDER / "golden.json", result)


def shifted(labels):
    """The decoder inputs that transformers derives from labels."""
    ids = np.roll(labels, 1, axis=1)
    ids[:, 0] = START
    ids[ids == common.IGNORE] = END
    return ids


if __name__ == "__main__":
    main()
