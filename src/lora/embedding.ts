import { tensor, zeros } from "../create.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { Embedding as BaseEmbedding, type EmbeddingOptions } from "../nn/embedding.js";
import { normal } from "../random.js";
import { made, parameter, type Tensor } from "../tensor.js";
import { checkOptions, combined, LoRALayer, scalingOf, type LoRAOptions } from "./layer.js";

export type LoRAEmbeddingOptions = Omit<LoRAOptions, "loraDropout"> & EmbeddingOptions;

/**
 * y = W[ids] + s·Aᵀ[ids]·Bᵀ. Shapes: A [r, n], B [d, r]. A starts at zero and B as N(0, 1): the
 * other way round than in a linear layer, so that the gradient of A stays as sparse as the ids.
 * Source: loralib's Embedding.
 */
export class Embedding extends LoRALayer(BaseEmbedding) {
  constructor(numEmbeddings: number, embeddingDim: number, options: LoRAEmbeddingOptions = {}) {
    super(numEmbeddings, embeddingDim, options);
    checkOptions("lora.Embedding", options);
    if ("loraDropout" in options && options.loraDropout) {
      throw new LowrankError(
        "ERR_OPTION",
        "lora.Embedding: ids cannot be dropped, so loraDropout has no meaning here",
      );
    }
    this.mergeWeights = options.mergeWeights ?? true;
    const { r = 0, loraAlpha = 1 } = options;
    if (r > 0) this.addAdapter("default", freshEmbedding(this, { r, loraAlpha }));
  }

  /** A low-rank layer in the place of `layer`: its weights are kept, and shared. */
  static fromBase(layer: BaseEmbedding, options: LoRAEmbeddingOptions = {}): Embedding {
    const { weight, numEmbeddings, embeddingDim, paddingIdx } = layer;
    const lora = new Embedding(numEmbeddings, embeddingDim, {
      ...(paddingIdx === undefined ? {} : { paddingIdx }),
      ...options,
      weight,
    });
    lora.training = layer.training;
    return lora;
  }

  override nameInMemory(adapter: string, which: "A" | "B"): string {
    return `lora_embedding_${which}.${adapter}`;
  }

  override deltaWeight(): Tensor {
    const { loraA, loraB, scaling } = combined(this);
    return loraA.matmul(loraB, { transA: true, transB: true }).mul(scaling);
  }

  override forward(ids: Tensor): Tensor {
    const base = this.withBase(() => super.forward(ids));
    if (!this.adapts) return base;
    const { loraA, loraB, scaling } = combined(this);
    const columns = made(() => session().embedding(loraA.id, ids.id, true, this.paddingIdx));
    return base.add(columns.matmul(loraB, { transB: true }).mul(scaling));
  }
}

/** A new adapter for an embedding, on its device. */
export function freshEmbedding(
  layer: BaseEmbedding,
  { r, loraAlpha, useRslora = false }: { r: number; loraAlpha: number; useRslora?: boolean },
) {
  const { numEmbeddings, embeddingDim, weight } = layer;
  const { device } = weight;
  return {
    r,
    loraAlpha,
    scaling: scalingOf(r, loraAlpha, useRslora),
    loraDropout: 0,
    loraA: parameter(zeros([r, numEmbeddings], { device })),
    loraB: parameter(tensor(normal(embeddingDim * r), { shape: [embeddingDim, r], device })),
  };
}
