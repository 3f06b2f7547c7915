/**
 * Writes GGUF files, version 3: metadata by key, then the names, shapes and offsets of all tensors, then their bytes,
 * each aligned to 32. Source: docs/gguf.md of ggml.
 */
import { open, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";

import { LowrankError } from "../errors.js";
import { makeFolder, move } from "../files/folders.js";
import { countBytes, GGUF_TYPES, type GgufFileType } from "./types.js";

/** A metadata value with its type. */
export type GgufValue =
  | { u32: number }
  | { f32: number }
  | { bool: boolean }
  | { text: string }
  | { texts: readonly string[] }
  | { f32s: readonly number[] }
  | { i32s: readonly number[] }
  | { bools: readonly boolean[] };

/** A tensor to write. */
export interface GgufTensor {
  /** At most 63 bytes, ggml's limit. */
  name: string;
  /** Outermost dimension first; the file stores them in reverse. */
  shape: readonly number[];
  type: GgufFileType;
  /** Called once, just before the tensor is written, so that only one tensor is in memory. */
  bytes(): Promise<Uint8Array>;
}

const ALIGNMENT = 32;
/** The maximum bytes of a tensor's name. */
const LONGEST_NAME = 63;
/** Type numbers of metadata values. */
const TYPE = { u32: 4, i32: 5, f32: 6, bool: 7, text: 8, array: 9 };
/** Counts this process's writes, so that concurrent writes to one path use different staging files. */
let writes = 0;
/** The maximum bytes per write: systems accept less than 2 GiB at once. */
const PIECE = 64 << 20;

/** A growable byte buffer. */
class Bytes {
  #data = new Uint8Array(1 << 16);
  #view = new DataView(this.#data.buffer);
  length = 0;

  #reserve(count: number): number {
    const offset = this.length;
    if (offset + count > this.#data.length) {
      const larger = new Uint8Array(Math.max(2 * this.#data.length, offset + count));
      larger.set(this.#data.subarray(0, offset));
      this.#data = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.length += count;
    return offset;
  }

  u8(value: number): void {
    const offset = this.#reserve(1);
    this.#view.setUint8(offset, value);
  }

  u32(value: number): void {
    const offset = this.#reserve(4);
    this.#view.setUint32(offset, value, true);
  }

  i32(value: number): void {
    const offset = this.#reserve(4);
    this.#view.setInt32(offset, value, true);
  }

  f32(value: number): void {
    const offset = this.#reserve(4);
    this.#view.setFloat32(offset, value, true);
  }

  u64(value: number): void {
    const offset = this.#reserve(8);
    this.#view.setBigUint64(offset, BigInt(value), true);
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value);
    this.u64(bytes.length);
    const offset = this.#reserve(bytes.length);
    this.#data.set(bytes, offset);
  }

  takeBytes(): Uint8Array {
    return this.#data.subarray(0, this.length);
  }
}

function put(out: Bytes, value: GgufValue): void {
  const writeTyped = (type: number, write: () => void): void => {
    out.u32(type);
    write();
  };
  const writeArray = <T>(type: number, all: readonly T[], write: (value: T) => void): void => {
    out.u32(TYPE.array);
    out.u32(type);
    out.u64(all.length);
    for (const each of all) write(each);
  };
  if ("u32" in value) writeTyped(TYPE.u32, () => out.u32(value.u32));
  else if ("f32" in value) writeTyped(TYPE.f32, () => out.f32(value.f32));
  else if ("bool" in value) writeTyped(TYPE.bool, () => out.u8(Number(value.bool)));
  else if ("text" in value) writeTyped(TYPE.text, () => out.text(value.text));
  else if ("texts" in value) writeArray(TYPE.text, value.texts, (text) => out.text(text));
  else if ("f32s" in value) writeArray(TYPE.f32, value.f32s, (number) => out.f32(number));
  else if ("i32s" in value) writeArray(TYPE.i32, value.i32s, (number) => out.i32(number));
  else writeArray(TYPE.bool, value.bools, (flag) => out.u8(Number(flag)));
}

function padLength(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

/** Returns the bytes before the tensors' data, with padding. */
function createHeader(metadata: ReadonlyMap<string, GgufValue>, tensors: readonly GgufTensor[]): Uint8Array {
  const out = new Bytes();
  for (const letter of "GGUF") out.u8(letter.charCodeAt(0));
  out.u32(3);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    out.text(key);
    put(out, value);
  }
  let place = 0;
  for (const { name, shape, type } of tensors) {
    out.text(name);
    out.u32(shape.length);
    for (const size of shape.toReversed()) out.u64(size);
    out.u32(GGUF_TYPES[type].id);
    out.u64(place);
    place += padLength(countTensorBytes({ shape, type }));
  }
  while (out.length % ALIGNMENT !== 0) out.u8(0);
  return out.takeBytes();
}

function countTensorBytes({ shape, type }: Pick<GgufTensor, "shape" | "type">): number {
  return countBytes(
    type,
    shape.reduce((n, size) => n * size, 1),
  );
}

/**
 * Writes a GGUF file atomically: to a staging file, tensor by tensor, which then replaces any existing file. Creates
 * missing folders. Throws `ERR_WRITE`, errors of a tensor's `bytes`, and the signal's reason, which is checked before
 * each tensor; the staging file is then deleted.
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufValue>,
  tensors: readonly GgufTensor[],
  signal?: AbortSignal,
): Promise<void> {
  const long = tensors.find(({ name }) => new TextEncoder().encode(name).length > LONGEST_NAME);
  if (long !== undefined)
    throw new LowrankError(
      "ERR_INTERNAL",
      `${path}: a tensor's name is longer than GGUF allows: ${long.name}`,
    );
  const staging = `${path}.tmp-${process.pid}-${++writes}`;
  try {
    await makeFolder(dirname(path));
    const file = await open(staging, "w");
    try {
      await append(file, createHeader(metadata, tensors));
      for (const tensor of tensors) {
        signal?.throwIfAborted();
        const bytes = await tensor.bytes();
        if (bytes.length !== countTensorBytes(tensor))
          throw new LowrankError("ERR_INTERNAL", `${path}: ${tensor.name} has ${bytes.length} bytes`);
        await append(file, bytes);
        await append(file, new Uint8Array(padLength(bytes.length) - bytes.length));
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await move(staging, path);
  } catch (error) {
    await rm(staging, { force: true }).catch(() => {});
    if (error instanceof LowrankError || signal?.aborted === true) throw error;
    throw new LowrankError("ERR_WRITE", `${path}: ${(error as Error).message}`, { cause: error });
  }
}

async function append(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, written, Math.min(PIECE, bytes.length - written));
    written += bytesWritten;
  }
}
