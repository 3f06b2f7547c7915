/** Safetensors files as dictionaries of tensors. */
import type * as Binding from "../native/binding.js";
import { nativePath } from "./archive.js";
import { isPlain, options, refuse, text } from "./argument.js";
import { resolveDevice, type Device } from "./device.js";
import { LowrankError, type ErrorCode } from "./errors.js";
import { call, native, session, translated, type WeightsFile } from "./native.js";
import { type DType, isBlock, isTensor, type Tensor, wrapped } from "./tensor.js";

/** @internal Opens a safetensors file or a folder; everything in its header is checked. */
export function openWeights(path: string): WeightsFile {
  return call(() => native().WeightsFile.open(nativePath(path)));
}

/**
 * @internal One tensor of a file: in place on the cpu, uploaded elsewhere. It is frozen. In another dtype it is converted,
 * or quantised.
 */
export function mapped(file: WeightsFile, name: string, device?: Device, dtype?: DType): Tensor {
  return wrapped(session().mapTensor(file, name, resolveDevice(device), dtype));
}

/** @internal What `read` gives of each name: all of them, or an error and none. */
export function byName(names: readonly string[], read: (name: string) => Tensor): Record<string, Tensor> {
  const out = new Map<string, Tensor>();
  try {
    for (const name of names) out.set(name, read(name));
  } catch (error) {
    for (const tensor of out.values()) tensor.dispose();
    throw translated(error);
  }
  // Whose keys are its own, `__proto__` as well.
  return Object.fromEntries(out);
}

/** Where `load` puts what it reads. */
export interface LoadFileOptions {
  /** The default device unless given. */
  device?: Device | undefined;
}

/** What `save` writes besides tensors. */
export interface SaveFileOptions {
  /** Texts by name, as `__metadata__` of the file. */
  metadata?: Readonly<Record<string, string>> | undefined;
}

/**
 * All tensors of a safetensors file, or of a folder with shards and their index, by name. On the cpu they stay in the
 * mapped file, and are read when they are used. They ask for no gradient.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_OUT_OF_MEMORY`, `ERR_OPTION`.
 */
// A promise by contract: a device may be slow to take what a file holds.
// eslint-disable-next-line @typescript-eslint/require-await
export async function load(path: string, given?: LoadFileOptions): Promise<Record<string, Tensor>> {
  text("safetensors.load", "path", path);
  const { device } = options("safetensors.load", given, ["device"]);
  const file = openWeights(path);
  return byName(file.names(), (name) => mapped(file, name, device));
}

/**
 * Writes tensors as one safetensors file, whole or not at all: it is written beside and renamed into place. That may be
 * the file that they were loaded from. Where the system replaces no file that is mapped, as Windows, tensors that lie in
 * it are copied into memory first.
 *
 * Throws `ERR_WRITE`, `ERR_OPTION`, `ERR_OUT_OF_MEMORY`.
 */
export async function save(
  path: string,
  tensors: Readonly<Record<string, Tensor>>,
  given?: SaveFileOptions,
): Promise<void> {
  const where = "safetensors.save";
  text(where, "path", path);
  const { metadata = {} } = options(where, given, ["metadata"]);
  if (!isPlain(metadata)) refuse(where, "metadata", "texts by name", metadata);
  for (const [name, value] of Object.entries(metadata)) text(where, `metadata.${name}`, value);
  if (!isPlain(tensors)) refuse(where, "tensors", "tensors by name", tensors);
  for (const [name, tensor] of Object.entries(tensors))
    if (!isTensor(tensor)) refuse(where, `tensors.${name}`, "a tensor", tensor);
    else if (isBlock(tensor.dtype)) {
      throw new LowrankError(
        "ERR_DTYPE",
        `${where}: tensors.${name} is quantised (${tensor.dtype}), which the format has no name for; convert it with to("f32")`,
      );
    }
  const entries = await Promise.all(
    Object.entries(tensors).map(async ([name, tensor]) => {
      const data = await tensor.data();
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return { name, dtype: tensor.dtype, shape: [...tensor.shape], bytes };
    }),
  );
  await settledFile(native().writeSafetensors(path, entries, metadata));
}

/** @internal Writes a text file whole or not at all. Throws `ERR_WRITE`. */
export async function writeWhole(path: string, text: string): Promise<void> {
  await settledFile(native().writeFile(path, new TextEncoder().encode(text)));
}

async function settledFile(writing: Promise<Binding.Failure | null>): Promise<void> {
  const failure = await writing;
  if (failure !== null) throw new LowrankError(failure.code as ErrorCode, failure.message);
}

/** @internal Bytes of one element. */
export function elementBytes(dtype: DType): number {
  return dtype === "f32" || dtype === "i32" ? 4 : 2;
}
