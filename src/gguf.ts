/** GGUF files as dictionaries of tensors. */
import { closeSync, openSync, readSync } from "node:fs";

import { nativePath } from "./archive.js";
import { options, text } from "./argument.js";
import { resolveDevice, type Device } from "./device.js";
import { call, native, session, type GgufFile } from "./native.js";
import { byName, type LoadFileOptions } from "./safetensors.js";
import { type DType, type Tensor, wrapped } from "./tensor.js";

/** A value of a file's metadata; a bigint where no number holds it exactly. */
export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

/** @internal Opens a GGUF file; everything in its header is checked. */
export function openGguf(path: string): GgufFile {
  return call(() => native().GgufFile.open(nativePath(path)));
}

/**
 * @internal One tensor of a file, frozen: in place on the cpu where its elements are stored plainly, else unpacked to
 * f32 unless `dtype` is that of the blocks. With `heads`, its rows are those of rotary heads whose pairs are neighbours, and become halves.
 */
export function ggufTensor(
  file: GgufFile,
  name: string,
  device?: Device,
  { heads, dtype }: { heads?: number | undefined; dtype?: DType | undefined } = {},
): Tensor {
  return wrapped(session().ggufTensor(file, name, resolveDevice(device), heads, dtype));
}

/** @internal Whether a file begins as GGUF does, or is named so. */
export function isGguf(path: string): boolean {
  if (/\.gguf$/i.test(path)) return true;
  try {
    const file = openSync(nativePath(path), "r");
    try {
      const magic = Buffer.alloc(4);
      return readSync(file, magic, 0, 4, 0) === 4 && magic.toString("latin1") === "GGUF";
    } finally {
      closeSync(file);
    }
  } catch {
    // Whoever opens it says what is wrong.
    return false;
  }
}

/**
 * All tensors of a GGUF file by name, with the names and the layout that the file has. What is stored in blocks is
 * unpacked to f32; other tensors stay in the mapped file on the cpu, and are read when they are used. They ask for no
 * gradient.
 *
 * Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_OUT_OF_MEMORY`, `ERR_OPTION`.
 */
// A promise by contract: a device may be slow to take what a file holds.
// eslint-disable-next-line @typescript-eslint/require-await
export async function load(path: string, given?: LoadFileOptions): Promise<Record<string, Tensor>> {
  text("gguf.load", "path", path);
  const { device } = options("gguf.load", given, ["device"]);
  const file = openGguf(path);
  return byName(file.names(), (name) => ggufTensor(file, name, device));
}
