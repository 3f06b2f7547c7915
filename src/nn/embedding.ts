import { checkKnownOptions, checkWhole } from "../arguments/check.js";
import { tensor } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { drawNormalValues } from "../tensor/random.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { checkInput, checkValues } from "./inputs.js";
import { Module } from "./module.js";
import { checkRoom } from "./room.js";
import { LAYER_REFUSALS } from "../refusals/layers.js";
import { createRefusal } from "../refusals/refusal.js";

/** The options of `Embedding`. */
export interface EmbeddingOptions {
  /** A row that starts at zero and gets no gradient; negative from the end. */
  paddingIdx?: number | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
  /** A table [n, d] to use instead of a random one. */
  weight?: Tensor | undefined;
}

/** y = W[ids]. Shapes: ids i32 [...], W [n, d], y [..., d]. W starts as N(0, 1). As `torch.nn.Embedding`. */
export class Embedding extends Module {
  /** Rows of the table. */
  readonly numEmbeddings: number;
  /** Features of a row. */
  readonly embeddingDim: number;
  /** The row that starts at zero and gets no gradient. */
  readonly paddingIdx: number | undefined;
  /** The table, [n, d]. */
  weight: Tensor;

  /**
   * Of `numEmbeddings` rows of `embeddingDim` features. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for a weight that does
   * not fit; `ERR_OUT_OF_MEMORY`.
   */
  constructor(numEmbeddings: number, embeddingDim: number, given: EmbeddingOptions = {}) {
    super();
    checkWhole("Embedding", "numEmbeddings", numEmbeddings, 1);
    checkWhole("Embedding", "embeddingDim", embeddingDim, 1);
    if (typeof given === "object" && given !== null && "maxNorm" in given && given.maxNorm !== undefined)
      throw createRefusal(LAYER_REFUSALS.maxNorm, "Embedding");
    // Subclasses check their own options.
    const chosen =
      new.target === Embedding
        ? checkKnownOptions("Embedding", given, ["paddingIdx", "device", "weight"])
        : given;
    const { device, weight } = chosen;
    this.numEmbeddings = numEmbeddings;
    this.embeddingDim = embeddingDim;
    this.paddingIdx = resolveRow(chosen.paddingIdx, numEmbeddings);
    const shape = [numEmbeddings, embeddingDim];
    if (weight !== undefined) {
      this.weight = checkValues("Embedding", "weight", weight, shape);
      return;
    }
    checkRoom("Embedding", device, numEmbeddings * embeddingDim);
    const values = drawNormalValues(numEmbeddings * embeddingDim);
    if (this.paddingIdx !== undefined)
      values.fill(0, this.paddingIdx * embeddingDim, (this.paddingIdx + 1) * embeddingDim);
    this.weight = makeParameter(tensor(values, { shape, device }));
  }

  /**
   * Shapes: ids i32 [...], y [..., d]. Throws `ERR_OPTION`, `ERR_DTYPE`; `ERR_INDEX` for ids outside the table, whose rows
   * are NaN where only the device knows them.
   */
  forward(ids: Tensor): Tensor {
    checkInput("Embedding", ids, "ids");
    return recordOp(() => session().embedding(this.weight.id, ids.id, false, this.paddingIdx));
  }
}

/** A row counted from either end, checked. */
function resolveRow(index: number | undefined, rows: number): number | undefined {
  if (index === undefined) return undefined;
  const row = index < 0 ? index + rows : index;
  if (Number.isInteger(row) && row >= 0 && row < rows) return row;
  throw new LowrankError("ERR_OPTION", `Embedding: paddingIdx ${index} is none of ${rows} rows`);
}
