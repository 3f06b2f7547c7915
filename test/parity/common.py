"""Shared by the golden scripts: float64 models, filled weights, batches, files."""

import json
import logging
import math
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may depend on a download

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import modeling_rope_utils
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.phi3 import modeling_phi3
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

import fill

GOLDENS = Path(__file__).resolve().parent / "goldens"
VOCAB = 97
IGNORE = -100

torch.use_deterministic_algorithms(True)
logging.getLogger("transformers").setLevel(logging.ERROR)


class _Torch64:
    """The torch module for modelling code, with float64 where that code hard-codes float32."""

    float32 = torch.float64
    float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def _rotary64(self, x, position_ids):
    freqs = position_ids[..., None].double() * self.inv_freq
    emb = torch.cat((freqs, freqs), dim=-1)
    return emb.cos() * self.attention_scaling, emb.sin() * self.attention_scaling


def _gemma_rotary64(self, x, position_ids, layer_type):
    freqs = position_ids[..., None].double() * getattr(self, f"{layer_type}_inv_freq")
    emb = torch.cat((freqs, freqs), dim=-1)
    scaling = getattr(self, f"{layer_type}_attention_scaling")
    return emb.cos() * scaling, emb.sin() * scaling


def _gemma_norm64(self, x):
    return self._norm(x.double()) * (1.0 + self.weight.double())


@contextmanager
def float64():
    """transformers runs norms, softmax and rotary tables in float32 for any dtype of the model.

    Inside this context they run in float64. `check_against_float32` proves that nothing else changed.
    """
    saved = []

    def swap(owner, name, value):
        saved.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    for module in (modeling_gemma3, modeling_llama, modeling_mistral, modeling_phi3, modeling_qwen2, modeling_qwen3, modeling_rope_utils):
        swap(module, "torch", _Torch64())
    swap(modeling_gemma3.Gemma3RotaryEmbedding, "forward", _gemma_rotary64)
    swap(modeling_gemma3.Gemma3RMSNorm, "forward", _gemma_norm64)
    swap(modeling_llama.LlamaRotaryEmbedding, "forward", _rotary64)
    swap(modeling_mistral.MistralRotaryEmbedding, "forward", _rotary64)
    swap(modeling_phi3.Phi3RotaryEmbedding, "forward", modeling_rope_utils.dynamic_rope_update(_rotary64))
    swap(modeling_qwen2.Qwen2RotaryEmbedding, "forward", _rotary64)
    swap(modeling_qwen3.Qwen3RotaryEmbedding, "forward", _rotary64)
    try:
        yield
    finally:
        for owner, name, value in reversed(saved):
            setattr(owner, name, value)


def build(folder, dtype=torch.float64, **overrides):
    """The model of folder/config.json, filled by its parameters' names."""
    config = AutoConfig.from_pretrained(folder, **overrides)
    config._name_or_path = ""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model = model.to(dtype)  # parameters; the rotary table is built as float64 inside float64()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # a tied head is listed once, as embed_tokens
            parameter.copy_(torch.from_numpy(fill.tensor(name, parameter.shape)))
    if dtype == torch.float64:
        rotary = model.model.rotary_emb
        frequencies = rotary.inv_freq if hasattr(rotary, "inv_freq") else rotary.sliding_attention_inv_freq
        assert (frequencies != frequencies.float().double()).any(), "the rotary table went through float32"
    return model.eval()


def ids_of(tensor):
    return torch.from_numpy(tensor.astype(np.int64))


def batch(name, shape=(2, 17), ignored=((0, 5), (0, 2))):
    """Token ids, and labels equal to them except for a prefix and a suffix per row: ignored[row] = (prefix, suffix)."""
    ids = fill.integers(name, shape, VOCAB)
    labels = ids.copy()
    for row, (prefix, suffix) in enumerate(ignored):
        labels[row, :prefix] = IGNORE
        labels[row, shape[1] - suffix :] = IGNORE
    return ids, labels


def trained(labels):
    """The number of labels in the loss: the first column is never predicted."""
    return int((labels[:, 1:] != IGNORE).sum())


def loss_of(logits, labels, count=None):
    """transformers' loss without its cast to float32: the mean over all trained labels, or the sum over `count`."""
    total = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]),
        ids_of(labels)[:, 1:].reshape(-1),
        ignore_index=IGNORE,
        reduction="sum",
    )
    return total / (trained(labels) if count is None else count)


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids_of(ids), use_cache=False).logits


def check_against_float32(folder, ids, labels, logits):
    """Checks the same model in unmodified transformers, in float32: equal up to float32's rounding."""
    model = build(folder, torch.float32)
    with torch.no_grad():
        out = model(input_ids=ids_of(ids), labels=ids_of(labels), use_cache=False)
    error = (out.logits.double() - logits).abs().max().item() / logits.abs().max().item()
    assert error < 2e-5, error
    assert abs(out.loss.item() - loss_of(logits, labels).item()) < 1e-5 * out.loss.item()
    return error


def adapter_parameters(model):
    """The trainable parameters by the names PEFT saves them under (not a target embedding's base weight)."""
    state = get_peft_model_state_dict(model, state_dict=model.state_dict(keep_vars=True))
    return {k: v for k, v in sorted(state.items()) if getattr(v, "requires_grad", False)}


def add_adapter(model, task_type="CAUSAL_LM", **options):
    """PEFT's wrapper with every trainable parameter filled by its saved name, so that B is not zero."""
    model = get_peft_model(model, LoraConfig(task_type=task_type, **options)).double()
    named = adapter_parameters(model)
    assert len(named) == sum(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(fill.tensor(name, parameter.shape)))
    return model


def gradient_norm(parameters):
    return math.sqrt(sum(p.grad.square().sum().item() for p in parameters))


def linear_factor(step, warmup, steps):
    """The schedule: transformers' linear one, except that the warm-up starts at 1/warmup instead of 0."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0, (steps - step) / max(1, steps - warmup))


def train_steps(named, loss_of_step, tensors, steps, warmup, adamw, clip):
    """Trains with AdamW on a linear schedule; `grad.KEY` of the first step goes into `tensors`."""
    parameters = list(named.values())
    optimizer = torch.optim.AdamW(parameters, **adamw, foreach=False)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: linear_factor(step, warmup, steps))
    losses, norms, rates = [], [], []
    for step in range(steps):
        loss = loss_of_step(step)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for name, parameter in named.items():
                assert parameter.grad.abs().max() > 0
                tensors[f"grad.{name}"] = parameter.grad.clone()
        norm = gradient_norm(parameters)
        clipped = torch.nn.utils.clip_grad_norm_(parameters, clip)
        assert abs(norm - clipped.item()) < 1e-12 * norm
        losses.append(loss.item())
        norms.append(norm)
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return {
        "steps": steps, "warmup": warmup, **adamw, "clipNorm": clip,
        "losses": losses, "gradNorms": norms, "learningRates": rates,
    }


def save_adapter(model, folder):
    """Calls model.save_pretrained in float32; parameters are rounded first, so the file is exact."""
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(parameter.float().double())
    fresh(folder)
    model.save_pretrained(folder, state_dict={k: v.float() for k, v in model.state_dict().items()})
    (folder / "README.md").unlink(missing_ok=True)  # the model card is a template
    sort_config(folder / "adapter_config.json")


def sort_config(path):
    """Sorts sets, which PEFT writes in hash order, which differs from run to run."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps(sort_lists(config), indent=2, sort_keys=True))


def sort_lists(config):
    return {k: sorted(v) if isinstance(v, list) and all(isinstance(x, str) for x in v) else v for k, v in config.items()}


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def array(value):
    """The dtype in a file: float32, int32."""
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    assert np.isfinite(value).all()
    return np.ascontiguousarray(value.astype(np.int32 if value.dtype.kind == "i" else np.float32))


def write_tensors(path, tensors):
    save_file({k: array(v) for k, v in tensors.items()}, path)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def versions():
    import peft

    return {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
