/** Reads GGUF files as dictionaries of tensors. */
import { closeSync, openSync, readSync } from "node:fs";

import { resolveNativePath } from "../files/archive.js";
import { checkKnownOptions, checkText } from "../arguments/check.js";
import { resolveDevice, type Device } from "../device/device.js";
import { call, native, session, type GgufFile } from "../native/binding.js";
import { readByName, type LoadFileOptions } from "../files/safetensors.js";
import { type DType, type Tensor, wrapHandle } from "../tensor/tensor.js";

/** A metadata value; a bigint where a number cannot represent it exactly. */
export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

/** @internal Opens a GGUF file and checks its whole header. */
export function openGguf(path: string): GgufFile {
  return call(() => native().GgufFile.open(resolveNativePath(path)));
}

/**
 * @internal Returns one tensor of a file, frozen. Plain types are memory-mapped on the CPU; block formats are unpacked
 * to f32 unless `dtype` names them. With `heads`, interleaved rows of rotary heads become halves.
 */
export function mapGgufTensor(
  file: GgufFile,
  name: string,
  device?: Device,
  { heads, dtype }: { heads?: number | undefined; dtype?: DType | undefined } = {},
): Tensor {
  return wrapHandle(session().ggufTensor(file, name, resolveDevice(device), heads, dtype));
}

/** @internal Whether a file has GGUF's extension or magic bytes. */
export function isGguf(path: string): boolean {
  if (/\.gguf$/i.test(path)) return true;
  try {
    const file = openSync(resolveNativePath(path), "r");
    try {
      const magic = Buffer.alloc(4);
      return readSync(file, magic, 0, 4, 0) === 4 && magic.toString("latin1") === "GGUF";
    } finally {
      closeSync(file);
    }
  } catch {
    // An unreadable file is reported when it is opened.
    return false;
  }
}

/**
 * Loads all tensors of a GGUF file by name, with the file's names and layouts. Block formats are unpacked to f32; other
 * tensors are memory-mapped on the CPU. Tensors do not require gradients.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_OUT_OF_MEMORY`, `ERR_OPTION`.
 */
// Asynchronous by contract: uploads to a device may be slow.
// eslint-disable-next-line @typescript-eslint/require-await
export async function load(path: string, given?: LoadFileOptions): Promise<Record<string, Tensor>> {
  checkText("gguf.load", "path", path);
  const { device } = checkKnownOptions("gguf.load", given, ["device"]);
  const file = openGguf(path);
  return readByName(file.names(), (name) => mapGgufTensor(file, name, device));
}
