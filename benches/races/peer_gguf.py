"""Writes the inputs of QVAC: a model of SmolLM2-135M's shape with fewer layers, random f16 weights, and a text.

    python peer_gguf.py FOLDER [--layers 8]

The vocabulary has SmolLM2's size, but its tokens are only bytes and placeholders, so each byte of the text is a token.
"""

import argparse
import os
import struct

import numpy as np

WIDTH, INNER, HEADS, KEYS, HEAD, VOCAB, CONTEXT = 576, 1536, 9, 3, 64, 49152, 2048
# QVAC does not train Llama; Qwen3 differs by a norm of each head's queries and keys.
ARCHITECTURE = "qwen3"
U32, F32, STRING, ARRAY = 4, 6, 8, 9
ALIGNMENT = 32


def bytes_as_characters():
    """Returns GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def array(kind, items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def metadata(layers):
    characters = bytes_as_characters()
    tokens = ["<|endoftext|>", *(characters[b] for b in range(256))]
    tokens += [f"<name{i}>" for i in range(VOCAB - len(tokens))]
    kinds = [3] + [1] * (VOCAB - 1)  # control, normal
    number = lambda n: (U32, struct.pack("<I", n))
    real = lambda x: (F32, struct.pack("<f", x))
    string = lambda s: (STRING, text(s))
    return {
        "general.architecture": string(ARCHITECTURE),
        "general.alignment": number(ALIGNMENT),
        "general.file_type": number(1),
        f"{ARCHITECTURE}.context_length": number(CONTEXT),
        f"{ARCHITECTURE}.embedding_length": number(WIDTH),
        f"{ARCHITECTURE}.block_count": number(layers),
        f"{ARCHITECTURE}.feed_forward_length": number(INNER),
        f"{ARCHITECTURE}.attention.head_count": number(HEADS),
        f"{ARCHITECTURE}.attention.head_count_kv": number(KEYS),
        f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon": real(1e-5),
        f"{ARCHITECTURE}.rope.freq_base": real(100_000),
        f"{ARCHITECTURE}.attention.key_length": number(HEAD),
        f"{ARCHITECTURE}.attention.value_length": number(HEAD),
        f"{ARCHITECTURE}.vocab_size": number(VOCAB),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("qwen2"),
        "tokenizer.ggml.tokens": (ARRAY, array(STRING, [text(t) for t in tokens])),
        "tokenizer.ggml.token_type": (ARRAY, array(5, [struct.pack("<i", k) for k in kinds])),
        # A merge that never applies, since an empty list is rejected.
        "tokenizer.ggml.merges": (ARRAY, array(STRING, [text(f"{characters[0]} {characters[1]}")])),
        "tokenizer.ggml.bos_token_id": number(0),
        "tokenizer.ggml.eos_token_id": number(0),
    }


def weights(layers):
    random = np.random.default_rng(0)
    matrix = lambda rows, columns: random.normal(0, 0.02, (rows, columns)).astype(np.float16)
    norm = lambda size=WIDTH: np.ones(size, np.float32)
    yield "token_embd.weight", matrix(VOCAB, WIDTH)
    yield "output_norm.weight", norm()
    for i in range(layers):
        yield f"blk.{i}.attn_norm.weight", norm()
        yield f"blk.{i}.attn_q.weight", matrix(WIDTH, WIDTH)
        yield f"blk.{i}.attn_k.weight", matrix(KEYS * HEAD, WIDTH)
        yield f"blk.{i}.attn_v.weight", matrix(KEYS * HEAD, WIDTH)
        yield f"blk.{i}.attn_q_norm.weight", norm(HEAD)
        yield f"blk.{i}.attn_k_norm.weight", norm(HEAD)
        yield f"blk.{i}.attn_output.weight", matrix(WIDTH, WIDTH)
        yield f"blk.{i}.ffn_norm.weight", norm()
        yield f"blk.{i}.ffn_gate.weight", matrix(INNER, WIDTH)
        yield f"blk.{i}.ffn_up.weight", matrix(INNER, WIDTH)
        yield f"blk.{i}.ffn_down.weight", matrix(WIDTH, INNER)


def write(path, layers):
    fields, tensors = metadata(layers), list(weights(layers))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for key, (kind, value) in fields.items():
        head += text(key) + struct.pack("<I", kind) + value
    data = b""
    for name, values in tensors:
        kind = 1 if values.dtype == np.float16 else 0
        shape = values.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += values.tobytes() + b"\0" * (-values.nbytes % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % ALIGNMENT) + data)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("folder")
    options.add_argument("--layers", type=int, default=8)
    args = options.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    write(os.path.join(args.folder, "model.gguf"), args.layers)
    with open(os.path.join(args.folder, "text.txt"), "w") as file:
        file.write("".join(chr(97 + (i * 7 + i // 11) % 26) for i in range(512 * 2)))


if __name__ == "__main__":
    main()
