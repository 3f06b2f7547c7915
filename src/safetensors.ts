/** Safetensors files as dictionaries of tensors. */
import type * as Binding from "../native/binding.js";
import { resolveDevice, type Device } from "./device.js";
import { LowrankError, type ErrorCode } from "./errors.js";
import { call, native, session, translated, type WeightsFile } from "./native.js";
import { Tensor, type DType } from "./tensor.js";

/** @internal Opens a safetensors file or a folder; everything in its header is checked. */
export function openWeights(path: string): WeightsFile {
  return call(() => native().WeightsFile.open(path));
}

/** @internal One tensor of a file: in place on the cpu, uploaded elsewhere. It is frozen. */
export function mapped(file: WeightsFile, name: string, device?: Device): Tensor {
  return new Tensor(session().mapTensor(file, name, resolveDevice(device)));
}

/**
 * All tensors of a safetensors file, or of a folder of shards, by name; frozen. On the cpu they lie in the file, which is
 * mapped. I64 becomes i32.
 *
 * Rejects with `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for a file that is damaged or holds other dtypes.
 */
// A promise by contract: a device may be slow to take what a file holds.
// eslint-disable-next-line @typescript-eslint/require-await
export async function load(
  path: string,
  { device }: { device?: Device } = {},
): Promise<Record<string, Tensor>> {
  const file = openWeights(path);
  const out: Record<string, Tensor> = {};
  try {
    for (const name of file.names()) out[name] = mapped(file, name, device);
  } catch (error) {
    for (const tensor of Object.values(out)) tensor.dispose();
    throw translated(error);
  }
  return out;
}

/**
 * Writes tensors, by name and each in its dtype, as one safetensors file, whole or not at all: it is written beside and
 * renamed into place. `metadata` is kept in its header. Rejects with `ERR_WRITE`.
 */
export async function save(
  path: string,
  tensors: Record<string, Tensor>,
  { metadata = {} }: { metadata?: Record<string, string> } = {},
): Promise<void> {
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
