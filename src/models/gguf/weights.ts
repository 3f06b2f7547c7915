/** The tensors of a GGUF file as a model's folder would have them. */
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import { refused } from "../../refusals/refusal.js";
import type { Device } from "../../device.js";
import { ggufTensor } from "../../gguf.js";
import { call, type GgufFile } from "../../native.js";
import { noGrad, scope } from "../../scope.js";
import { isBlock, type Tensor } from "../../tensor.js";
import type { Quantization } from "../quantization.js";
import type { TensorSource } from "../weights.js";
import { FACTORS, type Names, type Undone } from "./names.js";

/** Heads of the queries, and of the keys and values. */
export interface Heads {
  query: number;
  key: number;
}

/** Gives tensors by transformers' names, with what a converter has done to them undone. */
export class GgufWeights implements TensorSource {
  readonly #places = new Map<string, { name: string; undone?: Undone | undefined }>();

  constructor(
    private readonly file: GgufFile,
    names: Names,
    private readonly heads: Heads,
  ) {
    const factors = Object.values(FACTORS);
    for (const name of call(() => file.names())) {
      // What the configuration has of them is no weight.
      const bare = name.replace(/^blk\.\d+\./, "");
      if (factors.includes(bare)) continue;
      const own = names.of(name);
      this.#places.set(own.name, { ...own, name });
    }
  }

  /** Transformers' name of a tensor of the file; undefined for one that is no weight. */
  nameOf(stored: string): string | undefined {
    for (const [name, place] of this.#places) if (place.name === stored) return name;
    return undefined;
  }

  names(): string[] {
    return [...this.#places.keys()];
  }

  shape(name: string): number[] {
    const { name: stored, undone } = this.#place(name);
    const { shape } = call(() => this.file.info(stored));
    return undone === "transposed" ? shape.reverse() : shape;
  }

  /** The one place where a stored tensor becomes one of a model's. */
  tensor(name: string, device: Device, quantize?: Quantization): Tensor {
    const { name: stored, undone } = this.#place(name);
    if (quantize !== undefined) throw refused(QUANTISED_REFUSALS.quantizedFile, "loadModel", quantize);
    if (undone === undefined || typeof undone === "object") {
      const heads = undone === undefined ? undefined : this.heads[undone.rows];
      const { dtype, shape } = call(() => this.file.info(stored));
      // Weights of layers and embeddings stay in their blocks, and are read where they lie.
      const kept = isBlock(dtype) && shape.length === 2 ? dtype : undefined;
      return ggufTensor(this.file, stored, device, { heads, dtype: kept });
    }
    return noGrad(() =>
      scope(() => {
        const tensor = ggufTensor(this.file, stored, device);
        return undone === "one" ? tensor.sub(1) : tensor.transpose(0, 1);
      }),
    );
  }

  #place(name: string): { name: string; undone?: Undone | undefined } {
    return this.#places.get(name) ?? { name };
  }
}
