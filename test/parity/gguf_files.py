"""The output of llama.cpp's converters for the golden models and adapters, and blocks of the gguf package (README.md).

    python gguf_files.py LLAMA_CPP

LLAMA_CPP is a checkout of github.com/ggml-org/llama.cpp, whose conversion/ and gguf-py/ are used. For each tensor its
type, its shape in ggml's order and the SHA-256 of its bytes are stored, and all keys that do not depend on the folder.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

if len(sys.argv) < 2:
    sys.exit(__doc__)
LLAMA_CPP = Path(sys.argv[1])
sys.path[1:1] = [str(LLAMA_CPP / "gguf-py"), str(LLAMA_CPP)]

import gguf
import numpy as np
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
from safetensors.numpy import save_file

import common
import fill

FOLDER = common.GOLDENS / "gguf"
PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}

# Golden model, changes of its configuration, storage. Rows of 48 values are no whole blocks, but GPT-2's rows of 32 are.
MODELS = {
    "llama-tied": ("llama-tied", {}, "f32"),
    "llama3": ("llama-untied-llama3", {}, "f32"),
    "linear": ("llama-linear", {}, "f16"),
    "mistral": ("llama-mistral", {"sliding_window": None}, "bf16"),
    "qwen2": ("llama-qwen2", {"use_sliding_window": False}, "f32"),
    "qwen3": ("llama-qwen3", PLAIN, "f32"),
    "gemma3": ("llama-gemma3", {"query_pre_attn_scalar": 16}, "f32"),
    "phi3": ("llama-phi3", {"sliding_window": None}, "f32"),
    "gpt2": ("families/gpt2", {}, "q8_0"),
}
ADAPTERS = {
    "llama3": ("llama-untied-llama3", "llama-untied-llama3/adapter"),
    "phi3": ("llama-phi3", "llama-phi3/adapter"),
}


def model_folder(folder, golden, overrides):
    """The golden's model, with weights filled by their names."""
    source = common.GOLDENS / golden
    config = json.loads((source / "config.json").read_text()) | overrides
    (folder / "config.json").write_text(json.dumps(config))
    weights = json.loads((source / "golden.json").read_text())["weights"]
    save_file({name: fill.tensor(name, shape).astype(np.float32) for name, shape in weights.items()}, folder / "model.safetensors")
    return folder


def contents(file):
    """Keys and tensors of a GGUF file."""
    reader = gguf.GGUFReader(file)
    keys = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name not in ("general.name", "general.size_label")
        and not name.startswith(("general.base_model", "general.tags", "general.finetune", "general.basename"))
    }
    tensors = {
        one.name: [one.tensor_type.name, [int(n) for n in one.shape], hashlib.sha256(one.data.tobytes()).hexdigest()[:16]]
        for one in reader.tensors
    }
    return {"keys": keys, "tensors": tensors}


def convert(folder, out, kind):
    """Converts without a vocabulary, since a golden model has none."""
    hparams = ModelBase.load_hparams(folder, False)
    made = get_model_class(get_model_architecture(hparams, ModelType.TEXT))(folder, TYPES[kind], out)
    made.set_vocab = made._set_vocab_none
    if made.gguf_writer.arch == "gemma3":  # truncates the embedding's rows to the tokenizer's
        every = {"model": {"vocab": {str(i): i for i in range(common.VOCAB)}}, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(every))
    made.write()
    return contents(out)


def convert_adapter(folder, adapter, out):
    script = LLAMA_CPP / "convert_lora_to_gguf.py"
    subprocess.run([sys.executable, script, "--base", folder, "--outfile", out, adapter], check=True, capture_output=True)
    return contents(out)


def blocks():
    """Values for blocks: random ones of several sizes, and edge cases. Each case has a multiple of 32 values."""
    edges = {
        "zeros": [0.0] * 32,
        "minus zeros": [-0.0] * 32,
        "one value": [0.0] * 31 + [-3.5],
        "halves": [127.0] + [i / 2 for i in range(-15, 16)],
        "halves of four bits": [-8.0] + [i / 2 for i in range(-15, 16)],
        "halves by rounding": [-8.0] + [(i % 15) - 7 + 0.49999997 for i in range(31)],
        "equal ends": [4.0, -4.0] * 16,
        "subnormal scales": [1e-6 * (i - 16) for i in range(32)],
        "vanishing": [1e-12 * (i - 16) for i in range(32)],
        "largest scale": [65504.0 * 127 * (1 if i % 3 else -1) / (i + 1) for i in range(32)],
    }
    cases = {name: np.array(values, np.float32) for name, values in edges.items()}
    for scale in (0.0001, 0.02, 1, 300):
        cases[f"drawn {scale}"] = fill.uniform(f"gguf/blocks/{scale}", (64, 32), scale).astype(np.float32)
    out = {}
    for name, values in cases.items():
        out[name] = {} if name.startswith("drawn") else {"values": [float(v) for v in values]}
        for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
            if kind.name == "Q4_0" and name == "largest scale":
                continue  # its scale exceeds f16
            data = gguf.quants.quantize(values.reshape(-1, 32), kind).tobytes()
            out[name][kind.name.lower()] = data.hex() if len(data) < 64 else hashlib.sha256(data).hexdigest()[:16]
    return out


def main():
    FOLDER.mkdir(exist_ok=True)
    result = {"models": {}, "adapters": {}, "blocks": blocks()}
    with tempfile.TemporaryDirectory() as work:
        for name, (golden, overrides, kind) in MODELS.items():
            folder = Path(work) / name
            folder.mkdir()
            model_folder(folder, golden, overrides)
            one = convert(folder, folder / "model.gguf", kind)
            result["models"][name] = {"golden": golden, "overrides": overrides, "dtype": kind, **one}
            print(f"{name}: {len(one['keys'])} keys, {len(one['tensors'])} tensors")
        for name, (golden, adapter) in ADAPTERS.items():
            folder = Path(work) / f"{name} base"
            folder.mkdir()
            model_folder(folder, golden, {})
            one = convert_adapter(folder, common.GOLDENS / adapter, folder / "adapter.gguf")
            result["adapters"][name] = {"golden": golden, "adapter": adapter, **one}
            print(f"adapter of {name}: {len(one['tensors'])} tensors")
    common.write_json(FOLDER / "golden.json", result)


if __name__ == "__main__":
    main()
