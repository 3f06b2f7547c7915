/** The GGUF file that a model was loaded from, whose unchanged tensors are copied on saving. */
import { existsSync } from "node:fs";

import { type GgufFileType, isFileType } from "../types.js";
import { openGguf } from "../read.js";
import { call, type GgufFile } from "../../native/binding.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { measureStoredDifference } from "../../tensor/stored-difference.js";
import { isBlock, type Tensor } from "../../tensor/tensor.js";
import { Metadata } from "../import/metadata.js";
import { readArchitecture, Names } from "../import/names.js";
import { GgufWeights, type Heads } from "../import/weights.js";

/** The tensors of a model's file. */
export class GgufSource {
  readonly #file: GgufFile;
  readonly #weights: GgufWeights;
  readonly #names: ReadonlySet<string>;
  /** `general.file_type`; undefined where the file lacks it. */
  readonly fileType: number | undefined;

  private constructor(path: string, heads: Heads) {
    this.#file = openGguf(path);
    const meta = new Metadata(this.#file, path);
    this.#weights = new GgufWeights(this.#file, new Names(readArchitecture(meta)), heads);
    this.#names = new Set(call(() => this.#file.names()));
    this.fileType = meta.readNumber("general.file_type");
  }

  /** Opens the file; undefined where it no longer exists. Throws `ERR_FILE_FORMAT`. */
  static open(path: string | undefined, heads: Heads): GgufSource | undefined {
    return path !== undefined && existsSync(path) ? new GgufSource(path, heads) : undefined;
  }

  /** Returns the type of a tensor; undefined where the file has none of this name and shape. */
  findType(name: string, shape: readonly number[]): GgufFileType | undefined {
    if (!this.#names.has(name)) return undefined;
    const info = call(() => this.#file.info(name));
    return info.shape.join() === shape.join() && isFileType(info.dtype) ? info.dtype : undefined;
  }

  /** Whether a model's tensor still has the file's values. */
  async isUnchanged(name: string, current: Tensor): Promise<boolean> {
    const path = this.#weights.findName(name);
    if (path === undefined) return false;
    const given = this.#weights.tensor(path, "cpu");
    if (given.shape.join() !== current.shape.join()) {
      given.dispose();
      return false;
    }
    const [first, second] = noGrad(() => scope(() => [convertToPlain(current), convertToPlain(given)])) as [
      Tensor,
      Tensor,
    ];
    try {
      return (await measureStoredDifference(first, second)) === 0;
    } finally {
      for (const tensor of new Set([first, second, given])) if (tensor !== current) tensor.dispose();
    }
  }

  /** Returns the bytes of a tensor. */
  readBytes(name: string): Uint8Array {
    return call(() => this.#file.tensorBytes(name));
  }
}

function convertToPlain(tensor: Tensor): Tensor {
  return isBlock(tensor.dtype) ? tensor.to("f32") : tensor;
}
