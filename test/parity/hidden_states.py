"""Hidden states of every family, and embeddings instead of token ids: goldens/hidden_states.safetensors (README.md).

The models are from llama.py, families.py and whisper.py, whose folders must exist. `V.states.I` are transformers'
`hidden_states` of the base batch. `V.embeds` are embeddings filled by their name, with `V.embeds.logits`,
`V.embeds.states.I`, `V.embeds.loss` and `V.embeds.grad`, the loss's gradient.
"""

import contextlib

import torch
from transformers.models.vit import modeling_vit

import common
import families
import fill
import llama
import whisper

LLAMAS = ("untied-llama3", "mistral", "qwen2", "qwen3", "gemma3", "phi3")


@contextlib.contextmanager
def vit64():
    saved, modeling_vit.torch = modeling_vit.torch, common._Torch64()
    try:
        yield
    finally:
        modeling_vit.torch = saved


def text(name, model, inputs, loss_of, tensors):
    """`inputs` by transformers' names, including ids; `loss_of` is the loss of logits."""
    def put(prefix, states):
        for i, one in enumerate(states):
            tensors[f"{prefix}.{i}"] = one

    with torch.no_grad():
        put(f"{name}.states", model(**inputs, output_hidden_states=True).hidden_states)
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    width = model.get_input_embeddings().weight.shape[1]
    shape = (*inputs["input_ids"].shape, width)
    embeds = torch.from_numpy(fill.uniform(f"{name}/embeds", shape, 1.0)).double().requires_grad_()
    out = model(inputs_embeds=embeds, output_hidden_states=True, **rest)
    loss = loss_of(out.logits)
    loss.backward()
    put(f"{name}.embeds.states", out.hidden_states)
    tensors |= {
        f"{name}.embeds": embeds, f"{name}.embeds.logits": out.logits, f"{name}.embeds.loss": loss, f"{name}.embeds.grad": embeds.grad,
    }
    print(f"{name}: {len(out.hidden_states)} states, loss {loss.item():.6f}")


def main():
    tensors = {}
    for variant in LLAMAS:
        ids, labels = llama.base_batch(variant)
        with common.float64():
            model = common.build(llama.folder_of(variant))
            inputs = {"input_ids": common.ids_of(ids)}
            text(f"llama-{variant}", model, inputs, lambda logits: common.loss_of(logits, labels), tensors)
    for variant in ("gpt2", "gpt2-scaled", "bert", "roberta", "distilbert"):
        inputs, labels = families.batch(variant, "base")
        loss_of = lambda logits: families.loss_of(variant, logits, labels)
        text(variant, families.build(variant), families.given(inputs), loss_of, tensors)
    with vit64(), torch.no_grad():
        inputs, _ = families.batch("vit", "base")
        states = families.build("vit")(**families.given(inputs), output_hidden_states=True).hidden_states
        tensors |= {f"vit.states.{i}": one for i, one in enumerate(states)}
    with torch.no_grad():
        features, labels = whisper.batch("base")
        out = whisper.build()(input_features=features, labels=common.ids_of(labels), output_hidden_states=True, use_cache=False)
        for part, states in (("states", out.decoder_hidden_states), ("encoder", out.encoder_hidden_states)):
            tensors |= {f"whisper.{part}.{i}": one for i, one in enumerate(states)}
    common.write_tensors(common.GOLDENS / "hidden_states.safetensors", tensors)


if __name__ == "__main__":
    main()
