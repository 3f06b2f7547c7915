"""Goldens of tiny GPT-2, BERT, RoBERTa, DistilBERT and ViT models: logits, hidden states, losses, ten LoRA steps (README.md).

`python families.py [VARIANT ...]`; all by default.
"""

import json
import re
import sys
import tempfile

import loralib
import numpy as np
import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig
from transformers.models.vit import modeling_vit

import common
import fill

TEXT = {"vocab_size": common.VOCAB, "initializer_range": 0.02}
GPT2 = {**TEXT, "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
OLD = {"torch_dtype": "float32", "transformers_version": "4.40.0"}
THREE = {"id2label": {"0": "no", "1": "maybe", "2": "yes"}, "label2id": {"no": 0, "maybe": 1, "yes": 2}}

# An epsilon large enough that a wrong one has an effect; the second GPT-2 has a non-default value for every option.
CONFIGS = {
    "gpt2": {
        **GPT2, **OLD,
        "activation_function": "gelu_new",
        "bos_token_id": 96,
        "eos_token_id": 96,
        "layer_norm_epsilon": 1e-5,
        "n_ctx": 24,
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 24,
    },
    "gpt2-scaled": {
        **GPT2, **OLD,
        "activation_function": "gelu",
        "hidden_size": 24,
        "layer_norm_epsilon": 1e-3,
        "max_position_embeddings": 24,
        "n_inner": 40,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "scale_attn_by_inverse_layer_idx": True,
        "scale_attn_weights": False,
        "tie_word_embeddings": False,
    },
    "bert": {
        **TEXT, **SMALL, **OLD, **THREE,
        "architectures": ["BertForSequenceClassification"],
        "layer_norm_eps": 1e-4,
        "max_position_embeddings": 24,
        "model_type": "bert",
        "pad_token_id": 0,
        "type_vocab_size": 2,
    },
    "roberta": {
        **TEXT, **SMALL, **OLD, **THREE,
        "architectures": ["RobertaForSequenceClassification"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 26,
        "model_type": "roberta",
        "pad_token_id": 1,
        "type_vocab_size": 1,
    },
    "distilbert": {
        **TEXT, **OLD, **THREE,
        "activation": "gelu",
        "architectures": ["DistilBertForSequenceClassification"],
        "attention_dropout": 0.0,
        "dim": 32,
        "dropout": 0.0,
        "hidden_dim": 48,
        "max_position_embeddings": 24,
        "model_type": "distilbert",
        "n_heads": 4,
        "n_layers": 2,
        "pad_token_id": 0,
        "qa_dropout": 0.0,
        "seq_classif_dropout": 0.0,
        "sinusoidal_pos_embds": False,
        "tie_weights_": True,
    },
    "vit": {
        **SMALL, **OLD, **THREE,
        "architectures": ["ViTForImageClassification"],
        "encoder_stride": 4,
        "image_size": 12,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-4,
        "model_type": "vit",
        "num_channels": 3,
        "patch_size": 4,
        "qkv_bias": True,
    },
}

LORA = {
    "gpt2": {"r": 3, "lora_alpha": 9, "target_modules": ["c_attn"], "fan_in_fan_out": True},
    "bert": {"r": 4, "lora_alpha": 12, "target_modules": ["query", "value"], "task_type": "SEQ_CLS"},
    "roberta": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "SEQ_CLS"},
    # Not in PEFT's table of targets. "classifier", which PEFT saves, is also the end of "pre_classifier".
    "distilbert": {"r": 4, "lora_alpha": 12, "target_modules": ["q_lin", "v_lin"], "task_type": "SEQ_CLS"},
    "vit": {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "projection"], "modules_to_save": ["classifier"], "task_type": None},
}

STEPS, WARMUP = 10, 2
ADAMW = {"lr": 5e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
CLIP = 1.0

# transformers 5 renamed ViT's modules; files keep the old names, which save_pretrained writes.
VIT_FILE_NAMES = [
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]


def file_name(name):
    for pattern, to in VIT_FILE_NAMES:
        name = re.sub(pattern, to, name)
    return name


def folder_of(variant):
    return common.GOLDENS / "families" / variant


def build(variant, dtype=torch.float64, **overrides):
    """The model of a variant's configuration, filled by its tensor names in a file."""
    folder = folder_of(variant)
    config = AutoConfig.from_pretrained(folder, **overrides)
    config._name_or_path = ""
    config._attn_implementation = "eager"
    model = getattr(transformers, config.architectures[0])(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(fill.tensor(file_name(name), parameter.shape)))
    return model.eval()


def check_file_names(model):
    """Checks that the names are those written by transformers."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(f"{folder}/model.safetensors", "np") as file:
            written = set(file.keys())
    assert written == {file_name(name) for name, _ in model.named_parameters()}, written


def batch(variant, name):
    """Inputs of a variant by transformers' names, and labels."""
    key = f"{variant}/{name}"
    if variant.startswith("gpt2"):
        ids, labels = common.batch(key, ignored=((4, 1), (2, 0)))
        inputs = {"input_ids": ids}
        if variant == "gpt2-scaled":  # masked keys, and positions other than the indices
            mask = np.ones(ids.shape, np.int32)
            mask[0, 5:8], mask[1, 14:] = 0, 0
            positions = np.stack([np.arange(ids.shape[1]) + 3, np.arange(ids.shape[1])[::-1]])
            inputs |= {"attention_mask": mask, "position_ids": positions.astype(np.int32)}
        return inputs, labels
    labels = fill.integers(f"{key}/labels", (3,), 3)
    if variant == "vit":
        return {"pixel_values": fill.uniform(f"{key}/pixels", (3, 3, 12, 12), 1.0)}, labels
    ids = fill.integers(key, (3, 13), common.VOCAB - 3) + 3
    mask = np.ones((3, 13), np.int32)
    # The second row is padded as by a tokenizer, and the third masks tokens that are no padding.
    pad = CONFIGS[variant]["pad_token_id"]
    ids[1, 9:], mask[1, 9:], mask[2, 11:] = pad, 0, 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if variant == "bert":
        types = np.zeros((3, 13), np.int32)
        types[:, 6:] = 1
        inputs["token_type_ids"] = types
    return inputs, labels


def given(inputs, dtype=torch.float64):
    return {k: common.ids_of(v) if v.dtype.kind == "i" else torch.from_numpy(v).to(dtype) for k, v in inputs.items()}


def loss_of(variant, logits, labels):
    if variant.startswith("gpt2"):
        return common.loss_of(logits, labels)
    return torch.nn.functional.cross_entropy(logits, common.ids_of(labels))


def run_model(model, inputs, dtype=torch.float64):
    """Logits, and the output of the last norm."""
    with torch.no_grad():
        base = getattr(model, model.base_model_prefix)
        return model(**given(inputs, dtype)).logits, base(**given(inputs, dtype))[0]


def check_against_float32(variant, inputs, labels, logits):
    model = build(variant, torch.float32)
    with torch.no_grad():
        out = model(**given(inputs, torch.float32), labels=common.ids_of(labels))
    error = (out.logits.double() - logits).abs().max().item() / logits.abs().max().item()
    assert error < 2e-5, error
    loss = loss_of(variant, logits, labels).item()
    assert abs(out.loss.item() - loss) < 1e-5 * loss
    return error


def train(variant, inputs, tensors):
    folder = folder_of(variant)
    model = common.add_adapter(build(variant), **LORA[variant])
    common.save_adapter(model, folder / "adapter-init")
    with torch.no_grad():
        tensors["adapter_init_logits"] = model(**given(inputs)).logits
    model.train()  # no dropout anywhere

    def loss_of_step(step):
        step_inputs, labels = batch(variant, f"step.{step}")
        for name, value in {**step_inputs, "labels": labels}.items():
            tensors[f"step.{step}.{name}"] = value
        return loss_of(variant, model(**given(step_inputs)).logits, labels)

    named = common.adapter_parameters(model)
    training = common.train_steps(named, loss_of_step, tensors, STEPS, WARMUP, ADAMW, CLIP)
    common.save_adapter(model.eval(), folder / "adapter")
    loaded = PeftModel.from_pretrained(build(variant), folder / "adapter").double().eval()
    with torch.no_grad():
        tensors["adapter_logits"] = loaded(**given(inputs)).logits
    print(f"  losses {training['losses'][0]:.4f} .. {training['losses'][-1]:.4f}")
    return training


def train_merged(inputs, tensors):
    """GPT-2 as in LoRA's paper: loralib's MergedLinear on queries and values of every c_attn."""
    model = build("gpt2")
    r, alpha = 3, 6
    for block in model.transformer.h:
        conv = block.attn.c_attn
        merged = loralib.MergedLinear(
            *conv.weight.shape, r=r, lora_alpha=alpha, enable_lora=[True, False, True], fan_in_fan_out=True, merge_weights=False
        ).double()
        merged.weight.data, merged.bias.data = conv.weight.data, conv.bias.data
        block.attn.c_attn = merged
    loralib.mark_only_lora_as_trainable(model)
    named = {f"{name}.weight": p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(fill.tensor(name, parameter.shape)))
        tensors["merged.logits"] = model(**given(inputs)).logits
    model.train()

    def loss_of_step(step):
        step_inputs, labels = batch("gpt2", f"step.{step}")
        return loss_of("gpt2", model(**given(step_inputs)).logits, labels)

    gradients = {}
    training = common.train_steps(named, loss_of_step, gradients, STEPS, WARMUP, ADAMW, CLIP)
    tensors.update({f"merged.{name}": value for name, value in {**gradients, **named}.items()})
    return {"r": r, "loraAlpha": alpha, "training": training}


def other_losses(inputs):
    """BERT's losses by problem type: regression with one label, and multi-label classification."""
    values = fill.uniform("bert/values", (3, 1), 1.0)
    several = fill.integers("bert/several", (3, 3), 2).astype(np.float64)
    losses = {}
    for name, labels, overrides in (
        ("regression", values, {"num_labels": 1}),
        ("multi", several, {"problem_type": "multi_label_classification"}),
    ):
        model = build("bert", **overrides)
        with torch.no_grad():
            target = torch.from_numpy(labels[:, 0] if name == "regression" else labels)
            losses[name] = {"labels": labels.tolist(), "loss": model(**given(inputs), labels=target).loss.item()}
    return losses


def run(variant):
    folder = folder_of(variant)
    common.fresh(folder)
    (folder / "config.json").write_text(json.dumps(CONFIGS[variant], indent=2, sort_keys=True) + "\n")
    inputs, labels = batch(variant, "base")
    model = build(variant)
    check_file_names(model)
    logits, hidden = run_model(model, inputs)
    error = check_against_float32(variant, inputs, labels, logits)
    loss = loss_of(variant, logits, labels).item()
    print(f"{variant}: loss {loss:.6f}, float32 differs by {error:.1e}")
    tensors = {**inputs, "labels": labels, "logits": logits, "hidden": hidden}
    result = {
        "versions": common.versions(),
        "weights": {file_name(k): list(v.shape) for k, v in model.named_parameters()},
        "loss": loss,
    }
    if variant == "bert":
        result["losses"] = other_losses(inputs)
    if variant in LORA:
        result["training"] = train(variant, inputs, tensors)
    if variant == "gpt2":
        result["merged"] = train_merged(inputs, tensors)
    common.write_tensors(folder / "golden.safetensors", tensors)
    common.write_json(folder / "golden.json", result)


if __name__ == "__main__":
    saved, modeling_vit.torch = modeling_vit.torch, common._Torch64()  # its softmax hard-codes float32
    for variant in sys.argv[1:] or CONFIGS:
        run(variant)
    modeling_vit.torch = saved
