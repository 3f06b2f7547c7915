/** Safetensors files as dictionaries of tensors. */
import type * as Binding from "../../native/binding.js";
import { resolveNativePath } from "./archive.js";
import { isPlain, checkKnownOptions, refuse, checkText } from "../arguments/check.js";
import { resolveDevice, type Device } from "../device/device.js";
import { LowrankError, type ErrorCode } from "../errors.js";
import { call, native, session, translateError, type WeightsFile } from "../native/binding.js";
import { type DType, isBlock, isTensor, type Tensor, wrapHandle } from "../tensor/tensor.js";

/** @internal Opens a safetensors file or a folder of shards and validates its header. */
export function openWeights(path: string): WeightsFile {
  return call(() => native().WeightsFile.open(resolveNativePath(path)));
}

/**
 * @internal Reads a safetensors file, as of an adapter, into memory and validates its header. It may be written again while
 * its tensors are in use.
 */
export function readWeights(path: string): WeightsFile {
  return call(() => native().WeightsFile.read(resolveNativePath(path)));
}

/**
 * @internal Returns one tensor of a file, frozen: mapped on the CPU, uploaded to other devices. With another dtype it is
 * converted or quantised.
 */
export function mapTensor(file: WeightsFile, name: string, device?: Device, dtype?: DType): Tensor {
  return wrapHandle(session().mapTensor(file, name, resolveDevice(device), dtype));
}

/** @internal Reads all names; on an error, disposes those already read. */
export function readByName(names: readonly string[], read: (name: string) => Tensor): Record<string, Tensor> {
  const out = new Map<string, Tensor>();
  try {
    for (const name of names) out.set(name, read(name));
  } catch (error) {
    for (const tensor of out.values()) tensor.dispose();
    throw translateError(error);
  }
  // fromEntries defines own properties even for the key `__proto__`.
  return Object.fromEntries(out);
}

/** Options of `load`. */
export interface LoadFileOptions {
  /** The device of the tensors. Default: the default device. */
  device?: Device | undefined;
}

/** Options of `save`. */
export interface SaveFileOptions {
  /** Strings by name, written as `__metadata__` of the file. */
  metadata?: Readonly<Record<string, string>> | undefined;
}

/**
 * Loads all tensors of a safetensors file, or of a folder with shards and their index, by name. On the CPU they stay in
 * the mapped file and are read when used. They require no gradient.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_OUT_OF_MEMORY`, `ERR_OPTION`.
 */
// Asynchronous by contract, since uploading to a device may be slow.
// eslint-disable-next-line @typescript-eslint/require-await
export async function load(path: string, given?: LoadFileOptions): Promise<Record<string, Tensor>> {
  checkText("safetensors.load", "path", path);
  const { device } = checkKnownOptions("safetensors.load", given, ["device"]);
  const file = openWeights(path);
  return readByName(file.names(), (name) => mapTensor(file, name, device));
}

/** @internal Reads all tensors of a file into memory, by name. Throws as `load`. */
export function readAll(path: string, device?: Device): Record<string, Tensor> {
  const file = readWeights(path);
  return readByName(file.names(), (name) => mapTensor(file, name, device));
}

/**
 * Writes tensors as one safetensors file atomically, by renaming a staging file. The target may be the file that the
 * tensors were loaded from. Where the system cannot replace a mapped file (Windows), tensors mapped from it are first
 * copied into memory.
 *
 * Throws `ERR_WRITE`, `ERR_OPTION`, `ERR_OUT_OF_MEMORY`.
 */
export async function save(
  path: string,
  tensors: Readonly<Record<string, Tensor>>,
  given?: SaveFileOptions,
): Promise<void> {
  const where = "safetensors.save";
  checkText(where, "path", path);
  const { metadata = {} } = checkKnownOptions(where, given, ["metadata"]);
  if (!isPlain(metadata)) refuse(where, "metadata", "texts by name", metadata);
  for (const [name, value] of Object.entries(metadata)) checkText(where, `metadata.${name}`, value);
  if (!isPlain(tensors)) refuse(where, "tensors", "tensors by name", tensors);
  for (const [name, tensor] of Object.entries(tensors))
    if (!isTensor(tensor)) refuse(where, `tensors.${name}`, "a tensor", tensor);
    else if (isBlock(tensor.dtype)) {
      throw new LowrankError(
        "ERR_DTYPE",
        `${where}: tensors.${name} is quantised (${tensor.dtype}), which the format cannot store; convert it with to("f32")`,
      );
    }
  const entries = await Promise.all(
    Object.entries(tensors).map(async ([name, tensor]) => {
      const data = await tensor.data();
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return { name, dtype: tensor.dtype, shape: [...tensor.shape], bytes };
    }),
  );
  await awaitFile(native().writeSafetensors(path, entries, metadata));
}

/** @internal Writes a text file atomically. Throws `ERR_WRITE`. */
export async function writeWhole(path: string, text: string): Promise<void> {
  await awaitFile(native().writeFile(path, new TextEncoder().encode(text)));
}

async function awaitFile(writing: Promise<Binding.Failure | null>): Promise<void> {
  const failure = await writing;
  if (failure !== null) throw new LowrankError(failure.code as ErrorCode, failure.message);
}

/** @internal Returns the bytes of one element. */
export function countElementBytes(dtype: DType): number {
  return dtype === "f32" || dtype === "i32" ? 4 : 2;
}
