import { tensor, zeros } from "../create.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { Embedding as BaseEmbedding, type EmbeddingOptions } from "../nn/embedding.js";
import { normal } from "../random.js";
import { made, parameter, type Tensor } from "../tensor.js";
import { checkRoom, described, type Adapter, type AdapterOptions, type AdapterPart } from "./adapter.js";
import { checkOptions, combined, LoRALayer, sharesOf, type LoRAOptions } from "./layer.js";

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
    if (r > 0) this.addAdapter("default", this.freshAdapter({ ...options, r, loraAlpha }));
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

  override nameInMemory(adapter: string, part: AdapterPart): string {
    return part === "A" || part === "B"
      ? `lora_embedding_${part}.${adapter}`
      : super.nameInMemory(adapter, part);
  }

  override nameOnDisk(part: AdapterPart): string {
    return part === "A" || part === "B" ? `lora_embedding_${part}` : super.nameOnDisk(part);
  }

  override get outputDim(): number {
    return 1;
  }

  override freshAdapter(options: AdapterOptions): Adapter {
    if (options.loraBias)
      throw new LowrankError("ERR_OPTION", "lora.Embedding: loraBias has no meaning here");
    const adapter: Adapter = freshEmbedding(this, options);
    if (options.useDora) adapter.magnitude = parameter(this.magnitudeOf(adapter));
    return adapter;
  }

  override product({ loraA, loraB }: Adapter): Tensor {
    return loraA.matmul(loraB, { transA: true, transB: true });
  }

  override shapeOnDisk(part: AdapterPart, r: number): readonly number[] {
    if (part === "A") return [r, this.numEmbeddings];
    return part === "B" ? [this.embeddingDim, r] : [this.embeddingDim];
  }

  override forward(ids: Tensor): Tensor {
    const base = this.withBase(() => super.forward(ids));
    if (!this.adapts) return base;
    const { loraA, loraB, scaling } = combined(sharesOf(this, ids.size));
    const columns = made(() => session().embedding(loraA.id, ids.id, true, this.paddingIdx));
    return base.add(columns.matmul(loraB, { transB: true }).mul(scaling));
  }
}

/** A new adapter for an embedding, on its device. */
export function freshEmbedding(layer: BaseEmbedding, options: AdapterOptions): Adapter {
  const { numEmbeddings, embeddingDim, weight } = layer;
  const { device } = weight;
  const { r } = options;
  checkRoom("lora.Embedding", device, r * (numEmbeddings + embeddingDim));
  return {
    ...described({ ...options, loraDropout: 0 }),
    loraA: parameter(zeros([r, numEmbeddings], { device })),
    loraB: parameter(tensor(normal(embeddingDim * r), { shape: [embeddingDim, r], device })),
  };
}
