/** Weights derived from their names (test/parity/README.md), and folders of models filled with them. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { addedToken } from "./added-token.js";

type Shape = readonly number[];

/** Returns 32-bit words of a name's stream. */
export function words(name: string, count: number): Uint32Array {
  let seed = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) seed = Math.imul(seed ^ byte, 0x01000193);
  return Uint32Array.from({ length: count }, (_, i) => {
    let z = (seed + Math.imul(i, 0x9e3779b9)) >>> 0;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return z ^ (z >>> 16);
  });
}

function scaleOf(name: string, shape: Shape): [scale: number, center: number] {
  const root = Math.sqrt(shape[1] ?? 1);
  if (name.endsWith("bias")) return [0.1, 0];
  if (name.endsWith("norm.weight") || shape.length === 1) return [0.2, 1];
  if (name.includes(".lora_A.") || name.endsWith("lora_embedding_A")) return [1 / root, 0];
  if (name.includes(".lora_B.") || name.endsWith("lora_embedding_B")) return [0.3 / root, 0];
  if (name.endsWith("embed_tokens.weight")) return [1, 0];
  return [1.7 / root, 0];
}

/** Returns the values of tensor `name`. */
export function hashed(name: string, shape: Shape): Float32Array {
  const [scale, center] = scaleOf(name, shape);
  const count = shape.reduce((n, d) => n * d, 1);
  return Float32Array.from(words(name, count), (word) => ((word >>> 8) / 2 ** 24 - 0.5) * 2 * scale + center);
}

/** Returns a safetensors file of f32 tensors, written without the library. */
function safetensorsFile(
  shapes: Record<string, Shape>,
  values: (name: string, shape: Shape) => Float32Array,
): Buffer {
  let offset = 0;
  const parts: Buffer[] = [];
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  for (const [name, shape] of Object.entries(shapes)) {
    const data = values(name, shape);
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
    parts.push(Buffer.from(data.buffer));
  }
  const text = JSON.stringify(header);
  const head = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.length));
  return Buffer.concat([length, head, ...parts]);
}

const made: string[] = [];
process.on("exit", () => made.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** Creates an empty folder that is removed when the process ends. */
export function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-test-"));
  made.push(folder);
  return folder;
}

/**
 * Creates the folder of a golden's model: its config.json, with changes, and its weights, filled by their names.
 * `spelled` may rename a weight, or omit it by returning "". Llama may have more or fewer layers than its golden;
 * `reshaped` weights have another shape than the golden's.
 */
export function goldenModel(
  golden: string,
  overrides: Record<string, unknown> & { num_hidden_layers?: number } = {},
  spelled = (name: string): string => name,
  reshaped: Record<string, Shape> = {},
): string {
  const folder = temporary();
  const config = JSON.parse(readFileSync(join(golden, "config.json"), "utf8")) as Record<string, unknown>;
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, ...overrides }));
  const { weights } = JSON.parse(readFileSync(join(golden, "golden.json"), "utf8")) as {
    weights: Record<string, Shape>;
  };
  const { num_hidden_layers: layers } = overrides;
  const shapes = Object.fromEntries(
    Object.entries(weights).filter(([name]) => layers === undefined || !name.includes(".layers.")),
  );
  Object.assign(shapes, reshaped);
  for (let i = 0; i < (layers ?? 0); i++) {
    for (const [name, shape] of Object.entries(weights))
      if (name.includes(".layers.0.")) shapes[name.replace(".layers.0.", `.layers.${i}.`)] = shape;
  }
  const names = new Map(Object.keys(shapes).map((name) => [spelled(name), name]));
  names.delete("");
  const written = Object.fromEntries([...names].map(([to, name]) => [to, shapes[name] as Shape]));
  const values = (to: string, shape: Shape) => hashed(names.get(to) as string, shape);
  writeFileSync(join(folder, "model.safetensors"), safetensorsFile(written, values));
  return folder;
}

const CHARACTERS = ["\n", ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i))];

/** Letters as tokens: 0 unknown, 1 and 2 start and end. */
const TOKENIZER = {
  version: "1.0",
  added_tokens: ["<unk>", "<s>", "</s>"].map((content, id) => addedToken(id, content)),
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: { type: "Fuse" },
  model: {
    type: "BPE",
    unk_token: "<unk>",
    vocab: Object.fromEntries(["<unk>", "<s>", "</s>", ...CHARACTERS].map((token, id) => [token, id])),
    merges: [],
  },
};

/** Shape of the tiny Llama: grouped heads, an untied head. */
const SIZES = { V: 3 + CHARACTERS.length, C: 32, I: 48, layers: 2, H: 4, Hkv: 2 };

/** Creates a tiny Llama whose tokens are letters, with a tokenizer. */
export function tinyModel({ maxPositions = 64 } = {}): string {
  const { V, C, I, layers, H, Hkv } = SIZES;
  const kv = (C / H) * Hkv;
  const shapes: Record<string, Shape> = {
    "model.embed_tokens.weight": [V, C],
    "model.norm.weight": [C],
    "lm_head.weight": [V, C],
  };
  for (let i = 0; i < layers; i++) {
    const path = `model.layers.${i}`;
    for (const [name, shape] of Object.entries({
      "self_attn.q_proj": [C, C],
      "self_attn.k_proj": [kv, C],
      "self_attn.v_proj": [kv, C],
      "self_attn.o_proj": [C, C],
      "mlp.gate_proj": [I, C],
      "mlp.up_proj": [I, C],
      "mlp.down_proj": [C, I],
      input_layernorm: [C],
      post_attention_layernorm: [C],
    }))
      shapes[`${path}.${name}.weight`] = shape;
  }
  const folder = temporary();
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: V,
    hidden_size: C,
    intermediate_size: I,
    num_hidden_layers: layers,
    num_attention_heads: H,
    num_key_value_heads: Hkv,
    max_position_embeddings: maxPositions,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: "silu",
    tie_word_embeddings: false,
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: "float32",
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(TOKENIZER));
  writeFileSync(join(folder, "model.safetensors"), safetensorsFile(shapes, hashed));
  return folder;
}

/** Writes rows of text for the tiny model, as a `.jsonl` file. */
export function tinyData(rows = 24): string {
  const lines = Array.from({ length: rows }, (_, i) => {
    const text = "the whale swam on and on, and the sea was wide. "
      .repeat(1 + (i % 3))
      .slice(i % 7, 20 + ((i * 11) % 40));
    return JSON.stringify({ text });
  });
  const folder = temporary();
  mkdirSync(folder, { recursive: true });
  const file = join(folder, "data.jsonl");
  writeFileSync(file, `${lines.join("\n")}\n`);
  return file;
}
