"""Computes the logits of llama.cpp or transformers with a GGUF file, to check files written by lowrank.

    python gguf_logits.py llama.cpp|transformers REQUEST.json OUT.json

REQUEST.json is {"model": FILE, "adapter"?: FILE, "ids"?: [id, ...], "texts"?: [text, ...], "greedy"?: n}. OUT.json gets
{"logits": [[...], ...], "tokens": [[id, ...], ...], "greedy": [id, ...]}: the logits after each id, the ids of each text
with the special tokens around it, and n tokens after the ids. llama.cpp is PyPI's llama-cpp-python.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np


def by_transformers(model, ids):
    import torch
    from transformers import AutoModelForCausalLM

    path = Path(model)
    loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return {"logits": loaded.eval()(input_ids=torch.tensor([ids])).logits[0].tolist()}


def by_llama_cpp(model, ids, texts, greedy, adapter):
    import llama_cpp

    # One thread and no matrix library, for a fixed order of summation. The key-value cache is f32.
    loaded = llama_cpp.Llama(
        model_path=model, lora_path=adapter, n_ctx=len(ids) + greedy + 1, n_batch=512, n_threads=1, n_threads_batch=1,
        logits_all=True, verbose=False, type_k=0, type_v=0, n_gpu_layers=0, flash_attn=False,
    )
    out = {"tokens": [loaded.tokenize(text.encode(), add_bos=True, special=True) for text in texts]}
    if ids:
        loaded.eval(ids)
        out["logits"] = np.array(loaded.scores[: len(ids)]).tolist()
        out["greedy"] = []
        for _ in range(greedy):
            token = int(np.argmax(loaded.scores[loaded.n_tokens - 1]))
            out["greedy"].append(token)
            loaded.eval([token])
    return out


def main(by, request, out):
    given = json.loads(Path(request).read_text())
    model, ids = given["model"], given.get("ids", [])
    if by == "transformers":
        result = by_transformers(model, ids)
    else:
        result = by_llama_cpp(model, ids, given.get("texts", []), given.get("greedy", 0), given.get("adapter"))
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
