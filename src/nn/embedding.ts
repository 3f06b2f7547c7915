import { tensor } from "../create.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { normal } from "../random.js";
import { made, parameter, type Tensor } from "../tensor.js";
import { Module } from "./module.js";
import { checkRoom } from "./room.js";

export interface EmbeddingOptions {
  /** A row that starts at zero and gets no gradient; negative from the end. */
  paddingIdx?: number | undefined;
  device?: Device;
  /** Values to use as they are, instead of drawing new ones. */
  weight?: Tensor;
}

/** y = W[ids]. Shapes: ids i32 [...], W [n, d], y [..., d]. W starts as N(0, 1). */
export class Embedding extends Module {
  readonly numEmbeddings: number;
  readonly embeddingDim: number;
  readonly paddingIdx: number | undefined;
  weight: Tensor;

  constructor(numEmbeddings: number, embeddingDim: number, options: EmbeddingOptions = {}) {
    super();
    if ("maxNorm" in options && options.maxNorm !== undefined) {
      throw new LowrankError(
        "ERR_OPTION",
        "Embedding: maxNorm rewrites the weight in forward and is not offered",
      );
    }
    this.numEmbeddings = numEmbeddings;
    this.embeddingDim = embeddingDim;
    this.paddingIdx = rowOf(options.paddingIdx, numEmbeddings);
    if (options.weight !== undefined) {
      this.weight = options.weight;
      return;
    }
    checkRoom("Embedding", options.device, numEmbeddings * embeddingDim);
    const values = normal(numEmbeddings * embeddingDim);
    if (this.paddingIdx !== undefined)
      values.fill(0, this.paddingIdx * embeddingDim, (this.paddingIdx + 1) * embeddingDim);
    const place = options.device === undefined ? {} : { device: options.device };
    this.weight = parameter(tensor(values, { shape: [numEmbeddings, embeddingDim], ...place }));
  }

  forward(ids: Tensor): Tensor {
    return made(() => session().embedding(this.weight.id, ids.id, false, this.paddingIdx));
  }
}

/** A row counted from either end, checked. */
function rowOf(index: number | undefined, rows: number): number | undefined {
  if (index === undefined) return undefined;
  const row = index < 0 ? index + rows : index;
  if (Number.isInteger(row) && row >= 0 && row < rows) return row;
  throw new LowrankError("ERR_OPTION", `Embedding: paddingIdx ${index} is none of ${rows} rows`);
}
