import { arange, tensor, zeros } from "../../tensor/create.js";
import { Dropout } from "../../nn/dropout.js";
import type { Embedding } from "../../nn/embedding.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { ForwardOptions } from "../pretrained.js";
import { readTokenShape } from "../text-input.js";
import type { Weights } from "../weights.js";
import type { BertConfig } from "./config.js";

/** norm(word + type + position). ids i32 [B, T] → [B, T, C]. */
export class BertEmbeddings extends Module {
  /** The token embedding. */
  word_embeddings: Embedding;
  /** The position embedding. */
  position_embeddings: Embedding;
  /** The token type embedding. */
  token_type_embeddings: Embedding;
  /** The norm of the sum. */
  LayerNorm: LayerNorm;
  /** Dropout after the norm. */
  dropout: Dropout;
  /** For RoBERTa, the padding id: padding has this position, and texts start at the next one. */
  readonly offset: number | undefined;

  /** @internal */
  constructor(config: BertConfig, path: string, weights: Weights) {
    super();
    const { hiddenSize: C, padTokenId: pad } = config;
    this.offset = config.modelType === "roberta" ? pad : undefined;
    this.word_embeddings = weights.embedding(`${path}.word_embeddings`, config.vocabSize, C, {
      paddingIdx: pad,
    });
    this.position_embeddings = weights.embedding(`${path}.position_embeddings`, config.positionRows, C, {
      paddingIdx: this.offset,
    });
    this.token_type_embeddings = weights.embedding(`${path}.token_type_embeddings`, config.typeVocabSize, C);
    this.LayerNorm = weights.layerNorm(`${path}.LayerNorm`, C, config.layerNormEps);
    this.dropout = new Dropout(config.hiddenDropout);
  }

  /** Maps ids i32 [B, T], or null with `inputsEmbeds`, to [B, T, C]. */
  forward(ids: Tensor | null, options: ForwardOptions = {}): Tensor {
    const { tokenTypeIds, positionIds, inputsEmbeds } = options;
    const { device, shape } = readTokenShape(ids, options);
    const T = shape[1] as number;
    const words = inputsEmbeds ?? this.word_embeddings.forward(ids as Tensor);
    const types = tokenTypeIds ?? zeros([T], { dtype: "i32", device });
    const positions =
      positionIds ??
      (this.offset === undefined ? arange(T, { device }) : this.#computePositions(ids, this.offset, T));
    const sum = words
      .add(this.token_type_embeddings.forward(types))
      .add(this.position_embeddings.forward(positions));
    return this.dropout.forward(this.LayerNorm.forward(sum));
  }

  /** RoBERTa's positions; without ids no padding is recognised, as in transformers. */
  #computePositions(ids: Tensor | null, pad: number, T: number): Tensor {
    const { device } = this.word_embeddings.weight;
    return ids === null ? arange(pad + 1 + T, { start: pad + 1, device }) : countPositions(ids, pad);
  }
}

/**
 * Counts positions from `pad` + 1 over the tokens that are not padding; padding gets `pad`. ids i32 [B, T] → i32 [B,
 * T].
 */
function countPositions(ids: Tensor, pad: number): Tensor {
  const { device } = ids;
  const T = ids.shape[1] as number;
  const mask = ids
    .eq(tensor(Int32Array.of(pad), { shape: [], device }))
    .to("f32")
    .neg()
    .add(1);
  // A prefix sum as a product with a triangular matrix of ones; whole numbers are exact in f32.
  const triangle = new Float32Array(T * T);
  for (let s = 0; s < T; s++) triangle.fill(1, s * T + s, (s + 1) * T);
  const counted = mask.matmul(tensor(triangle, { shape: [T, T], device }));
  return counted.mul(mask).add(pad).to("i32");
}
