/** GGUF files, written without the library. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { temporary, words } from "../hashed.js";

/** Types of tensors by name: number in a file, elements and bytes of a block, and the offsets of its f16 scales. */
export const TYPES = {
  f32: { number: 0, elements: 1, bytes: 4, scales: [] },
  f16: { number: 1, elements: 1, bytes: 2, scales: [] },
  bf16: { number: 30, elements: 1, bytes: 2, scales: [] },
  q4_0: { number: 2, elements: 32, bytes: 18, scales: [0] },
  q4_1: { number: 3, elements: 32, bytes: 20, scales: [0, 2] },
  q5_0: { number: 6, elements: 32, bytes: 22, scales: [0] },
  q5_1: { number: 7, elements: 32, bytes: 24, scales: [0, 2] },
  q8_0: { number: 8, elements: 32, bytes: 34, scales: [0] },
  q2_k: { number: 10, elements: 256, bytes: 84, scales: [80, 82] },
  q3_k: { number: 11, elements: 256, bytes: 110, scales: [108] },
  q4_k: { number: 12, elements: 256, bytes: 144, scales: [0, 2] },
  q5_k: { number: 13, elements: 256, bytes: 176, scales: [0, 2] },
  q6_k: { number: 14, elements: 256, bytes: 210, scales: [208] },
  iq4_nl: { number: 20, elements: 32, bytes: 18, scales: [0] },
} as const;

export type TypeName = keyof typeof TYPES;

export type Value = number | string | boolean | readonly number[] | readonly string[];

/** Writes a number as f32; a plain whole number becomes a u32, and any other an f32. */
export class F32 {
  constructor(readonly value: number) {}
}

/** Writes a list as f32, including whole numbers. */
export class F32List {
  constructor(readonly values: readonly number[]) {}
}

export interface StoredTensor {
  name: string;
  /** Outermost first. */
  shape: readonly number[];
  type: TypeName;
  /** Random by default. */
  bytes?: Buffer;
}

const u32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value: number): Buffer => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const f32 = (value: number): Buffer => Buffer.from(Float32Array.of(value).buffer);

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function list(type: number, values: readonly Buffer[]): Buffer {
  return Buffer.concat([u32(9), u32(type), u64(values.length), ...values]);
}

function valued(value: Value | F32 | F32List): Buffer {
  if (value instanceof F32List) return list(6, value.values.map(f32));
  if (value instanceof F32) return Buffer.concat([u32(6), f32(value.value)]);
  if (typeof value === "string") return Buffer.concat([u32(8), text(value)]);
  if (typeof value === "boolean") return Buffer.concat([u32(7), Buffer.of(value ? 1 : 0)]);
  if (typeof value === "number")
    return Number.isInteger(value) ? Buffer.concat([u32(4), u32(value)]) : valued(new F32(value));
  const strings = value.some((one: number | string) => typeof one === "string");
  const whole = !strings && value.every((one: number | string) => Number.isInteger(one));
  const each = value.map((one: number | string) =>
    typeof one === "string" ? text(one) : whole ? Buffer.from(Int32Array.of(one).buffer) : f32(one),
  );
  return list(strings ? 8 : whole ? 5 : 6, each);
}

/** Returns an f16 of some hundredths. */
function scale(word: number): number {
  // Exponents of 2^-8 to 2^-5, of either sign.
  return (word & 0x8000) | ((((word >>> 16) % 3) + 7) << 10) | (word & 0x3ff);
}

/** Returns random bytes of a type whose values are finite and small. */
function drawn({ name, shape, type }: StoredTensor): Buffer {
  const count = shape.reduce((n, d) => n * d, 1);
  const { elements, bytes, scales } = TYPES[type];
  const out = Buffer.alloc((count / elements) * bytes);
  const random = words(name, out.length);
  if (elements > 1) {
    for (let i = 0; i < out.length; i++) out[i] = (random[i] as number) >>> 8;
    for (let at = 0; at < out.length; at += bytes)
      for (const place of scales) out.writeUInt16LE(scale(random[at + place] as number), at + place);
    return out;
  }
  for (let i = 0; i < count; i++) {
    const word = random[i] as number;
    const value = shape.length === 1 ? 0.8 + (0.4 * (word >>> 8)) / 2 ** 24 : (word >>> 8) / 2 ** 26 - 0.125;
    if (type === "f32") out.writeFloatLE(value, 4 * i);
    else if (type === "f16") out.writeUInt16LE(scale(word), 2 * i);
    else out.writeUInt16LE((new Uint32Array(Float32Array.of(value).buffer)[0] as number) >>> 16, 2 * i);
  }
  return out;
}

/** Writes a new file; returns its path. */
export function ggufFile(
  metadata: Readonly<Record<string, Value | F32 | F32List>>,
  tensors: readonly StoredTensor[],
  name = "model.gguf",
): string {
  const data: Buffer[] = [];
  const infos: Buffer[] = [];
  let offset = 0;
  for (const tensor of tensors) {
    const bytes = tensor.bytes ?? drawn(tensor);
    const dims = [...tensor.shape].reverse();
    infos.push(
      text(tensor.name),
      u32(dims.length),
      ...dims.map(u64),
      u32(TYPES[tensor.type].number),
      u64(offset),
    );
    const padded = Buffer.alloc(Math.ceil(bytes.length / 32) * 32);
    bytes.copy(padded);
    data.push(padded);
    offset += padded.length;
  }
  const keys = Object.entries(metadata).flatMap(([key, value]) => [text(key), valued(value)]);
  const counts = [u64(tensors.length), u64(Object.keys(metadata).length)];
  const head = Buffer.concat([Buffer.from("GGUF"), u32(3), ...counts, ...keys, ...infos]);
  const padding = Buffer.alloc((32 - (head.length % 32)) % 32);
  const path = join(temporary(), name);
  writeFileSync(path, Buffer.concat([head, padding, ...data]));
  return path;
}

/** Architectures with rotary positions and their tensors. */
export type Decoder = "llama" | "qwen2" | "qwen3" | "gemma3" | "phi3";

/** Tokens of a vocabulary, or other keys about the tokenizer. */
interface More {
  vocabulary?: number;
  metadata?: Readonly<Record<string, Value | F32 | F32List>>;
  size?: number;
  positions?: number;
  /** Types of single tensors, by name. */
  types?: Readonly<Record<string, TypeName>>;
}

/** Writes a model of one block whose matrices are all of one type, with 256 channels by default; returns its path. */
export function ggufModelFile(architecture: Decoder, type: TypeName, more: More = {}): string {
  const { vocabulary = 32, size: C = 256, positions = 64 } = more;
  const [H, kv, D] = [4, 2, C / 4];
  const key = (name: string): string => `${architecture}.${name}`;
  const metadata = {
    "general.architecture": architecture,
    [key("context_length")]: positions,
    [key("embedding_length")]: C,
    [key("block_count")]: 1,
    [key("feed_forward_length")]: C,
    [key("attention.head_count")]: H,
    [key("attention.head_count_kv")]: kv,
    [key("attention.layer_norm_rms_epsilon")]: new F32(1e-5),
    [key("attention.key_length")]: D,
    [key("attention.value_length")]: D,
    [key("rope.dimension_count")]: D,
    [key("rope.freq_base")]: new F32(10_000),
    ...(architecture === "gemma3" && { [key("attention.sliding_window")]: 8 }),
    ...more.metadata,
  };
  const tensors: StoredTensor[] = [{ name: "token_embd.weight", shape: [vocabulary, C], type }];
  const matrix = (name: string, rows: number): unknown =>
    tensors.push({ name: `blk.0.${name}.weight`, shape: [rows, C], type });
  const vector = (name: string, size = C): unknown =>
    tensors.push({ name: `blk.0.${name}`, shape: [size], type: "f32" });
  vector("attn_norm.weight");
  if (architecture === "phi3") matrix("attn_qkv", (H + 2 * kv) * D);
  else {
    matrix("attn_q", H * D);
    matrix("attn_k", kv * D);
    matrix("attn_v", kv * D);
  }
  if (architecture === "qwen2") {
    vector("attn_q.bias", H * D);
    vector("attn_k.bias", kv * D);
    vector("attn_v.bias", kv * D);
  }
  if (architecture === "qwen3" || architecture === "gemma3") {
    vector("attn_q_norm.weight", D);
    vector("attn_k_norm.weight", D);
  }
  matrix("attn_output", C);
  if (architecture === "gemma3") {
    vector("post_attention_norm.weight");
    vector("post_ffw_norm.weight");
  }
  vector("ffn_norm.weight");
  if (architecture === "phi3") matrix("ffn_up", 2 * C);
  else {
    matrix("ffn_gate", C);
    matrix("ffn_up", C);
  }
  matrix("ffn_down", C);
  tensors.push({ name: "output_norm.weight", shape: [C], type: "f32" });
  return ggufFile(
    metadata,
    tensors.map((one) => ({ ...one, type: more.types?.[one.name] ?? one.type })),
  );
}
