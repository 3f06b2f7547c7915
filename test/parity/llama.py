"""Goldens of tiny Llamas, a Mistral, Qwens, a Gemma and a Phi: logits, losses, gradients, ten LoRA training steps (README.md).

`python llama.py [VARIANT ...]`; all by default.
"""

import json
import shutil
import sys

import torch
from peft import PeftModel
from transformers import AutoConfig

import common

SHAPE = {
    "vocab_size": common.VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.02,
    "use_cache": True,
}
LLAMA = {**SHAPE, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
OLD = {"torch_dtype": "float32", "transformers_version": "4.40.0"}  # the format before transformers 5
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

CONFIGS = {
    "tied": {
        **LLAMA, **OLD,
        "attention_bias": False,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    # head_dim x heads is not hidden. The frequencies' wavelengths are below, between and above
    # llama3's two limits (8 and 32), so that each of its three branches is used.
    "untied-llama3": {
        **LLAMA,
        "attention_bias": True,
        "dtype": "float32",
        "head_dim": 16,
        "mlp_bias": False,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 20000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "tie_word_embeddings": False,
    },
    "mistral": {
        **SHAPE, **OLD,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "rms_norm_eps": 1e-05,
        "rope_theta": 50000.0,
        "sliding_window": 7,
        "tie_word_embeddings": False,
    },
    # An epsilon large enough that a wrong one has an effect.
    "linear": {
        **LLAMA, **OLD,
        "rms_norm_eps": 1e-03,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
}

QWEN = {**SHAPE, "rms_norm_eps": 1e-03, "rope_theta": 1000000.0}

# Biases only on q, k and v; the second layer sees 5 positions back.
CONFIGS["qwen2"] = {
    **QWEN, **OLD,
    "architectures": ["Qwen2ForCausalLM"],
    "max_window_layers": 1,
    "model_type": "qwen2",
    "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "sliding_window": 5,
    "tie_word_embeddings": True,
    "use_sliding_window": True,
}
# Norms of heads, whose size is not hidden over heads; in transformers 5's format.
CONFIGS["qwen3"] = {
    **QWEN,
    "architectures": ["Qwen3ForCausalLM"],
    "dtype": "float32",
    "head_dim": 16,
    "model_type": "qwen3",
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "mscale": 0.8,
        "mscale_all_dim": 0.4,
        "original_max_position_embeddings": 64,
        "truncate": False,
    },
    "tie_word_embeddings": False,
}
CONFIGS["dynamic"] = {
    **LLAMA, **OLD,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

# Layers of both kinds, with separate rotary bases; scores scaled by another value than the head size; a padded embedding.
CONFIGS["gemma3"] = {
    **{k: v for k, v in SHAPE.items() if k != "hidden_act"}, **OLD,
    "architectures": ["Gemma3ForCausalLM"],
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "model_type": "gemma3_text",
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-03,
    "rope_local_base_freq": 100.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "rope_theta": 20000.0,
    "sliding_window": 5,
    "sliding_window_pattern": 2,
    "tie_word_embeddings": True,
}

# Logits of up to 50, half of them above 6, are capped at 10, where tanh is far from linear.
CONFIGS["gemma3-capped"] = {**CONFIGS["gemma3"], "final_logit_softcapping": 10.0, "num_hidden_layers": 2}

# Fused products; half of a head is rotated, with separate factors; the texts are shorter than the turning point.
PHI = {
    **SHAPE, **OLD,
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "original_max_position_embeddings": 64,
    "pad_token_id": 0,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-03,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0]},
    "rope_theta": 1000.0,
    "sliding_window": 9,
    "tie_word_embeddings": False,
}
CONFIGS["phi3"] = PHI
# The texts are longer than the turning point.
CONFIGS["phi3-long"] = {**PHI, "original_max_position_embeddings": 16, "partial_rotary_factor": 1.0, "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.5], "long_factor": [2.0, 3.0, 5.0, 7.0]}, "sliding_window": None}

LORA = {
    "phi3": {"r": 4, "lora_alpha": 12, "target_modules": ["qkv_proj", "gate_up_proj", "down_proj"]},
    "gemma3": {"r": 4, "lora_alpha": 12, "target_modules": SEVEN},
    "gemma3-capped": {"r": 4, "lora_alpha": 12, "target_modules": SEVEN},
    "qwen2": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "qwen3": {"r": 4, "lora_alpha": 12, "target_modules": SEVEN},
    "tied": {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]},
    "untied-llama3": {"r": 3, "lora_alpha": 8, "target_modules": SEVEN},
}

STEPS, WARMUP = 10, 2
ADAMW = {"lr": 5e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
CLIP = 1.0


def folder_of(variant):
    return common.GOLDENS / f"llama-{variant}"


def write_config(variant):
    folder = folder_of(variant)
    common.fresh(folder)
    config = CONFIGS[variant]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if "dtype" in config:  # the format that transformers writes today
        AutoConfig.from_pretrained(folder).save_pretrained(folder)
    return folder


def base_batch(variant):
    return common.batch(f"llama-{variant}/ids", ignored=((9, 1), (2, 0)))


def step_batch(variant, step):
    ignored = tuple((1 + (step * 5 + row * 4) % 9, (step + row) % 3) for row in range(2))
    return common.batch(f"llama-{variant}/step.{step}", ignored=ignored)


def micro_batch(variant, index):
    """Very different numbers of trained tokens, so that a mean of means is far from the mean."""
    ignored = [((1, 0), (3, 0)), ((15, 1), (17, 0)), ((10, 3), (14, 1))][index]
    return common.batch(f"llama-{variant}/micro.{index}", ignored=ignored)


def accumulate(variant, tensors):
    """One optimiser step of three micro-batches whose loss is the mean over the whole step's trained tokens."""
    model = common.add_adapter(common.build(folder_of(variant)), **LORA[variant])
    batches = [micro_batch(variant, i) for i in range(3)]
    counts = [common.trained(labels) for _, labels in batches]
    loss, means = 0.0, []
    for index, (ids, labels) in enumerate(batches):
        logits = model(input_ids=common.ids_of(ids), use_cache=False).logits
        part = common.loss_of(logits, labels, count=sum(counts))
        part.backward()
        loss += part.item()
        means.append(common.loss_of(logits, labels).item())
        tensors[f"micro.{index}.ids"], tensors[f"micro.{index}.labels"] = ids, labels
    named = common.adapter_parameters(model)
    for name, parameter in named.items():
        tensors[f"micro.grad.{name}"] = parameter.grad
    assert abs(loss - sum(means) / 3) > 0.01 * loss, "a mean of means would pass"
    return {"trained": counts, "microLosses": means, "loss": loss, "gradNorm": common.gradient_norm(named.values())}


def train(variant, ids, tensors):
    folder = folder_of(variant)
    model = common.add_adapter(common.build(folder), **LORA[variant])
    common.save_adapter(model, folder / "adapter-init")
    tensors["adapter_init_logits"] = common.logits_of(model, ids)
    model.train()  # no dropout anywhere

    def loss_of_step(step):
        step_ids, labels = step_batch(variant, step)
        tensors[f"step.{step}.ids"], tensors[f"step.{step}.labels"] = step_ids, labels
        return common.loss_of(model(input_ids=common.ids_of(step_ids), use_cache=False).logits, labels)

    named = common.adapter_parameters(model)
    training = common.train_steps(named, loss_of_step, tensors, STEPS, WARMUP, ADAMW, CLIP)

    def mean_loss(m):
        with torch.no_grad():
            parts = [common.loss_of(common.logits_of(m, i), l).item() for i, l in (step_batch(variant, s) for s in range(STEPS))]
        return sum(parts) / STEPS

    # The batches differ from step to step, so the decrease is measured on all ten, before and after.
    start = mean_loss(PeftModel.from_pretrained(common.build(folder), folder / "adapter-init").double())
    common.save_adapter(model.eval(), folder / "adapter")
    loaded = PeftModel.from_pretrained(common.build(folder), folder / "adapter").double().eval()
    tensors["adapter_logits"] = common.logits_of(loaded, ids)
    assert torch.equal(tensors["adapter_logits"], common.logits_of(model, ids))
    end = mean_loss(loaded)
    assert end < start, (start, end)
    norms = training["gradNorms"]
    print(f"  mean loss of the ten batches {start:.4f} -> {end:.4f}; norms {min(norms):.3f} .. {max(norms):.3f}")
    return {**training, "meanLossBefore": start, "meanLossAfter": end}


def run(variant):
    folder = write_config(variant)
    ids, labels = base_batch(variant)
    with common.float64():
        model = common.build(folder)
        logits = common.logits_of(model, ids)
    error = common.check_against_float32(folder, ids, labels, logits)
    loss = common.loss_of(logits, labels).item()
    print(f"{variant}: loss {loss:.6f}, {common.trained(labels)} trained labels, float32 differs by {error:.1e}")
    tensors = {"ids": ids, "labels": labels, "logits": logits}
    result = {
        "versions": common.versions(),
        "weights": {k: list(v.shape) for k, v in model.named_parameters()},
        "trained": common.trained(labels),
        "loss": loss,
    }
    if variant in LORA:
        with common.float64():
            result["lora"] = LORA[variant]
            result["training"] = train(variant, ids, tensors)
            result["accumulation"] = accumulate(variant, tensors)
    common.write_tensors(folder / "golden.safetensors", tensors)
    common.write_json(folder / "golden.json", result)
    return logits


def check_window(logits):
    """The window counts the token itself: position t sees t-6 .. t, so a change at 0 must not reach past 2 layers x 6."""
    ids, _ = base_batch("mistral")
    changed = ids.copy()
    changed[:, 0] = (changed[:, 0] + 1) % common.VOCAB
    with common.float64():
        other = common.logits_of(common.build(folder_of("mistral")), changed)
    differs = (other != logits).any(-1).all(0)
    assert differs[:13].all() and not differs[13:].any(), differs


def check_type_spelling(logits):
    """`type`, which is even older than `rope_type`, has the same meaning."""
    folder = common.GOLDENS / "tmp"
    common.fresh(folder)
    config = {**CONFIGS["linear"], "rope_scaling": {"type": "linear", "factor": 2.0}}
    (folder / "config.json").write_text(json.dumps(config))
    with common.float64():
        other = common.logits_of(common.build(folder), base_batch("linear")[0])
    shutil.rmtree(folder)
    assert torch.equal(other, logits)


if __name__ == "__main__":
    made = {variant: run(variant) for variant in sys.argv[1:] or CONFIGS}
    if "mistral" in made:
        check_window(made["mistral"])
    if "linear" in made:
        check_type_spelling(made["linear"])
