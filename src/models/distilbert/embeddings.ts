import { arange } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { Dropout } from "../../nn/dropout.js";
import type { Embedding } from "../../nn/embedding.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { ForwardOptions } from "../pretrained.js";
import { readTokenShape } from "../text-input.js";
import type { Weights } from "../weights.js";
import { NORM_EPS } from "./block.js";
import type { DistilBertConfig } from "./config.js";

/** norm(word + position). ids i32 [B, T] → [B, T, C]. */
export class DistilBertEmbeddings extends Module {
  /** The token embedding. */
  word_embeddings: Embedding;
  /** The position embedding. */
  position_embeddings: Embedding;
  /** The norm of the sum. */
  LayerNorm: LayerNorm;
  /** Dropout after the norm. */
  dropout: Dropout;

  /** @internal */
  constructor(config: DistilBertConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, maxPositionEmbeddings, padTokenId: paddingIdx } = config;
    this.word_embeddings = weights.embedding(`${path}.word_embeddings`, config.vocabSize, C, { paddingIdx });
    this.position_embeddings = weights.embedding(`${path}.position_embeddings`, maxPositionEmbeddings, C, {
      start: config.sinusoidalPositions ? createAlternating : "normal",
    });
    this.LayerNorm = weights.layerNorm(`${path}.LayerNorm`, C, NORM_EPS);
    this.dropout = new Dropout(config.dropout);
  }

  /**
   * Maps ids i32 [B, T], or null with `inputsEmbeds`, to [B, T, C]. Throws `ERR_OPTION` for `tokenTypeIds`, which
   * DistilBERT lacks.
   */
  forward(ids: Tensor | null, options: ForwardOptions = {}): Tensor {
    const { tokenTypeIds, positionIds, inputsEmbeds } = options;
    if (tokenTypeIds !== undefined) {
      const what = "DistilBERT has no embedding of which text a token is of; leave tokenTypeIds out";
      throw new LowrankError("ERR_OPTION", `forward: ${what}`);
    }
    const { device, shape } = readTokenShape(ids, options);
    const positions = positionIds ?? arange(shape[1] as number, { device });
    const words = inputsEmbeds ?? this.word_embeddings.forward(ids as Tensor);
    const sum = words.add(this.position_embeddings.forward(positions));
    return this.dropout.forward(this.LayerNorm.forward(sum));
  }
}

/** Alternates sin and cos of position / 10000^(2 ⌊c/2⌋ / C). Source: transformers' create_sinusoidal_embeddings. */
function createAlternating([rows, C]: readonly number[]): Float32Array {
  const width = C as number;
  return Float32Array.from({ length: (rows as number) * width }, (_, i) => {
    const c = i % width;
    const angle = Math.floor(i / width) / 10_000 ** ((2 * Math.floor(c / 2)) / width);
    return c % 2 === 0 ? Math.sin(angle) : Math.cos(angle);
  });
}
