/** Safetensors files as dictionaries of tensors. */
import type * as Binding from "../native/binding.js";
import { resolveDevice, type Device } from "./device.js";
import { LowrankError, type ErrorCode } from "./errors.js";
import { call, native, session, translated } from "./native.js";
import { Tensor, type DType } from "./tensor.js";

/** A file, or a folder of shards, whose tensors are read where they lie. */
export type WeightsFile = Binding.WeightsFile;

/** Opens a safetensors file or a folder; everything in its header is checked. */
export function openWeights(path: string): WeightsFile {
  return call(() => native().WeightsFile.open(path));
}

/** One tensor of a file: in place on the cpu, uploaded elsewhere. It is frozen. */
export function mapped(file: WeightsFile, name: string, device?: Device): Tensor {
  return new Tensor(session().mapTensor(file, name, resolveDevice(device)));
}

/** All tensors of a safetensors file. */
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

/** Writes tensors as one file, whole or not at all: written beside and renamed into place. */
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

/** Writes a text file whole or not at all. Throws `ERR_WRITE`. */
export async function writeWhole(path: string, text: string): Promise<void> {
  await settledFile(native().writeFile(path, new TextEncoder().encode(text)));
}

async function settledFile(writing: Promise<Binding.Failure | null>): Promise<void> {
  const failure = await writing;
  if (failure !== null) throw new LowrankError(failure.code as ErrorCode, failure.message);
}

/** Bytes of one element. */
export function elementBytes(dtype: DType): number {
  return dtype === "f32" || dtype === "i32" ? 4 : 2;
}
