/** Reads a GGUF file without the library: keys, and tensors with their bytes. Source: docs/gguf.md of ggml. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

export type Value = number | boolean | string | bigint | Value[];

export interface ReadTensor {
  type: string;
  /** Innermost dimension first, as in the file. */
  shape: number[];
  bytes: Buffer;
}

const TYPES: Record<number, [name: string, values: number, bytes: number]> = {
  0: ["F32", 1, 4],
  1: ["F16", 1, 2],
  2: ["Q4_0", 32, 18],
  3: ["Q4_1", 32, 20],
  6: ["Q5_0", 32, 22],
  7: ["Q5_1", 32, 24],
  8: ["Q8_0", 32, 34],
  10: ["Q2_K", 256, 84],
  11: ["Q3_K", 256, 110],
  12: ["Q4_K", 256, 144],
  13: ["Q5_K", 256, 176],
  14: ["Q6_K", 256, 210],
  20: ["IQ4_NL", 32, 18],
  30: ["BF16", 1, 2],
};

export function readGguf(path: string): { keys: Record<string, Value>; tensors: Record<string, ReadTensor> } {
  const file = readFileSync(path);
  let at = 0;
  const u32 = (): number => file.readUInt32LE((at += 4) - 4);
  const u64 = (): number => Number(file.readBigUInt64LE((at += 8) - 8));
  const text = (): string => {
    const length = u64();
    return file.toString("utf8", at, (at += length));
  };
  const value = (type: number): Value => {
    if (type === 4) return u32();
    if (type === 5) return file.readInt32LE((at += 4) - 4);
    if (type === 6) return file.readFloatLE((at += 4) - 4);
    if (type === 7) return file.readUInt8(at++) === 1;
    if (type === 8) return text();
    if (type !== 9) throw new Error(`${path}: a value of type ${type}`);
    const [of, count] = [u32(), u64()];
    return Array.from({ length: count }, () => value(of));
  };
  if (file.toString("latin1", 0, 4) !== "GGUF") throw new Error(`${path} is no GGUF`);
  at = 4;
  const version = u32();
  if (version !== 3) throw new Error(`${path}: version ${version}`);
  const [tensorCount, keyCount] = [u64(), u64()];
  const keys: Record<string, Value> = {};
  for (let i = 0; i < keyCount; i++) {
    const key = text();
    if (key in keys) throw new Error(`${path}: ${key} twice`);
    keys[key] = value(u32());
  }
  const places = Array.from({ length: tensorCount }, () => {
    const name = text();
    const shape = Array.from({ length: u32() }, u64);
    return { name, shape, type: u32(), offset: u64() };
  });
  const data = Math.ceil(at / 32) * 32;
  const tensors: Record<string, ReadTensor> = {};
  let end = data;
  for (const { name, shape, type, offset } of places) {
    const [called, values, bytes] = TYPES[type] as [string, number, number];
    const size = (shape.reduce((n, d) => n * d, 1) / values) * bytes;
    if (data + offset !== end) throw new Error(`${path}: ${name} is not where it should be`);
    end = Math.ceil((end + size) / 32) * 32;
    tensors[name] = { type: called, shape, bytes: file.subarray(data + offset, data + offset + size) };
  }
  if (end !== file.length) throw new Error(`${path}: ${file.length} bytes, ${end} expected`);
  return { keys, tensors };
}

/** Returns the first 16 digits of a SHA-256. */
export function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 16);
}

/** Returns the values of an F32 tensor. */
export function floats({ bytes }: ReadTensor): Float32Array {
  return new Float32Array(Uint8Array.from(bytes).buffer);
}
