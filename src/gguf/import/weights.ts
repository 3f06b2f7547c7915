/** The tensors of a GGUF file, with the names and layouts of a Hugging Face folder. */
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import { createRefusal } from "../../refusals/refusal.js";
import type { Device } from "../../device/device.js";
import { mapGgufTensor } from "../read.js";
import { call, type GgufFile } from "../../native/binding.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { isBlock, type Tensor } from "../../tensor/tensor.js";
import type { Quantization } from "../../models/quantization.js";
import type { TensorSource } from "../../models/weights.js";
import { FACTORS, type Names, type Undone } from "./names.js";

/** Number of query heads, and of key/value heads. */
export interface Heads {
  query: number;
  key: number;
}

/** Provides tensors by transformers' names, and undoes the converter's changes. */
export class GgufWeights implements TensorSource {
  readonly #places = new Map<string, { name: string; undone?: Undone | undefined }>();

  constructor(
    private readonly file: GgufFile,
    names: Names,
    private readonly heads: Heads,
  ) {
    const factors = Object.values(FACTORS);
    for (const name of call(() => file.names())) {
      // Rotation factors are part of the configuration, not weights.
      const bare = name.replace(/^blk\.\d+\./, "");
      if (factors.includes(bare)) continue;
      const resolved = names.resolve(name);
      this.#places.set(resolved.name, { ...resolved, name });
    }
  }

  /** Returns transformers' name of a tensor in the file; undefined for one that is not a weight. */
  findName(stored: string): string | undefined {
    for (const [name, place] of this.#places) if (place.name === stored) return name;
    return undefined;
  }

  names(): string[] {
    return [...this.#places.keys()];
  }

  shape(name: string): number[] {
    const { name: stored, undone } = this.#locate(name);
    const { shape } = call(() => this.file.info(stored));
    return undone === "transposed" ? shape.reverse() : shape;
  }

  /** Converts a stored tensor to the model's; no other method does. */
  tensor(name: string, device: Device, quantize?: Quantization): Tensor {
    const { name: stored, undone } = this.#locate(name);
    if (quantize !== undefined) throw createRefusal(QUANTISED_REFUSALS.quantizedFile, "loadModel", quantize);
    if (undone === undefined || typeof undone === "object") {
      const heads = undone === undefined ? undefined : this.heads[undone.rows];
      const { dtype, shape } = call(() => this.file.info(stored));
      // Quantised matrices stay in their blocks and are memory-mapped.
      const blockType = isBlock(dtype) && shape.length === 2 ? dtype : undefined;
      return mapGgufTensor(this.file, stored, device, { heads, dtype: blockType });
    }
    return noGrad(() =>
      scope(() => {
        const tensor = mapGgufTensor(this.file, stored, device);
        return undone === "one" ? tensor.sub(1) : tensor.transpose(0, 1);
      }),
    );
  }

  #locate(name: string): { name: string; undone?: Undone | undefined } {
    return this.#places.get(name) ?? { name };
  }
}
