"""Small models as GGUF files, and the logits of transformers for the same values: goldens/gguf/.

Tensors are stored in the types that gguf-py can write. The logits are those of a model with the dequantised weights,
according to gguf-py, and with the configuration that the file was written from. The weights that transformers reads
from the file must give the same logits with that configuration, of which the file itself stores only a part.
"""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

GOLDENS = Path(__file__).resolve().parent / "goldens" / "gguf"
VOCAB = 64
IDS = [[3, 17, 42, 8, 8, 63, 0, 21, 5, 33, 11, 60, 2]]
# Consecutive, for the matrices in the sequence of the file.
TYPES = [Type.Q8_0, Type.Q5_1, Type.F16, Type.Q8_0, Type.BF16, Type.Q5_0, Type.F32, Type.Q4_1, Type.Q4_0]

SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    attn_implementation="eager",
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500000.0,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.25, 1.5, 2.0],
    "long_factor": [2.0, 2.5, 3.0, 4.0],
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "original_max_position_embeddings": 8,
    "attention_factor": 1.25,
}


def decoder_names(layers, inner):
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for n in range(layers):
        for own, stored in inner.items():
            names[f"model.layers.{n}.{own}"] = f"blk.{n}.{stored}"
    return names


INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
}
GEMMA = INNER | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gpt2_names(layers):
    names = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm"}
    inner = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm"}
    inner |= {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
    for n in range(layers):
        for own, stored in inner.items():
            names[f"transformer.h.{n}.{own}"] = f"blk.{n}.{stored}"
    return names


# Name: architecture, class, configuration.
MODELS = {
    "llama": ("llama", LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama-untied": (
        "llama",
        LlamaForCausalLM,
        LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=LLAMA3),
    ),
    "qwen2": ("qwen2", Qwen2ForCausalLM, Qwen2Config(**SIZES, rope_parameters=YARN)),
    "qwen3": ("qwen3", Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True)),
    "gemma3": (
        "gemma3",
        Gemma3ForCausalLM,
        Gemma3TextConfig(**SIZES, head_dim=16, query_pre_attn_scalar=16, sliding_window=4, sliding_window_pattern=2),
    ),
    "phi3": ("phi3", Phi3ForCausalLM, Phi3Config(**SIZES, rope_parameters=LONG)),
    "gpt2": (
        "gpt2",
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=VOCAB, n_positions=32, n_embd=32, n_layer=2, n_head=4, n_inner=64, bos_token_id=1, eos_token_id=2
        ),
    ),
}


def interleaved(weight, heads):
    """Reorders the rows of each head from halves to neighbours, as llama.cpp's converter does."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def halved(weight, heads):
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def metadata(writer, arch, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_vocab_size(VOCAB)
    if arch == "gpt2":
        writer.add_feed_forward_length(config.n_inner)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_pad_token_id(0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count_kv(config.num_key_value_heads)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head)
    if arch != "phi3":
        writer.add_key_length(head)
        writer.add_value_length(head)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(rope["attention_factor"])
        writer.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))
    if rope["rope_type"] == "llama3":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy().astype(np.float32))
    if arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        # Wider than Gemma's own window, which is not written.
        writer.add_array("gemma3.attention.sliding_window_pattern", [t == "sliding_attention" for t in config.layer_types])


def make(name):
    arch, kind, config = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    model = kind(config).eval()
    with torch.no_grad():
        for own, weight in model.named_parameters():
            scale = 0.3 if weight.dim() == 1 else 1.7 / weight.shape[-1] ** 0.5
            center = 1.0 if weight.dim() == 1 and own.endswith("weight") and arch != "gemma3" else 0.0
            weight.copy_(center + scale * (2 * torch.rand(weight.shape) - 1))
    layers = config.num_hidden_layers
    names = gpt2_names(layers) if arch == "gpt2" else decoder_names(layers, GEMMA if arch == "gemma3" else INNER)
    file = GOLDENS / f"{name}.gguf"
    writer = gguf.GGUFWriter(file, arch)
    writer.add_name(name)
    metadata(writer, arch, config)
    state, matrices = model.state_dict(), 0
    for own in list(state):
        path, leaf = own.rsplit(".", 1)
        if own == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weight = state[own].numpy().astype(np.float32)
        heads = config.num_attention_heads if "q_proj" in own else getattr(config, "num_key_value_heads", 0)
        turned = arch == "llama" and ("q_proj" in own or "k_proj" in own)
        transposed = arch == "gpt2" and weight.ndim == 2 and ".h." in own
        one = arch == "gemma3" and own.endswith("norm.weight")
        stored = interleaved(weight, heads) if turned else weight.T if transposed else weight + 1 if one else weight
        stored = np.ascontiguousarray(stored)
        dtype = Type.F32
        if weight.ndim == 2:
            dtype = TYPES[matrices % len(TYPES)]
            matrices += 1
        packed = stored.astype(np.float16) if dtype == Type.F16 else stored if dtype == Type.F32 else quantize(stored, dtype)
        writer.add_tensor(f"{names[path]}.{leaf}", packed, raw_dtype=dtype)
        back = packed.astype(np.float32) if dtype in (Type.F16, Type.F32) else dequantize(packed, dtype)
        back = halved(back, heads) if turned else back.T if transposed else back - 1 if one else back
        state[own] = torch.from_numpy(np.ascontiguousarray(back))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["transformer.wte.weight" if arch == "gpt2" else "model.embed_tokens.weight"]
    model.load_state_dict(state)
    ids = torch.tensor(IDS)
    with torch.no_grad():
        logits = model(ids).logits
        read = AutoModelForCausalLM.from_pretrained(GOLDENS, gguf_file=file.name, config=config, dtype=torch.float32).eval()
        other = read(ids).logits
        assert torch.allclose(logits, other, atol=1e-4), (name, (logits - other).abs().max())
    return logits.numpy()[0]


if __name__ == "__main__":
    GOLDENS.mkdir(exist_ok=True)
    save_file({name: make(name) for name in MODELS}, GOLDENS / "logits.safetensors")
