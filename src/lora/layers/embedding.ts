import { drawNormal, zeros } from "../../tensor/create.js";
import { session } from "../../native/binding.js";
import { Embedding as BaseEmbedding, type EmbeddingOptions } from "../../nn/embedding.js";
import { checkInput } from "../../nn/inputs.js";
import { recordOp, makeParameter, type Tensor } from "../../tensor/tensor.js";
import {
  checkAdapterRoom,
  describeAdapter,
  type Adapter,
  type FreshOptions,
  type AdapterPart,
} from "./adapter.js";
import { composeForward } from "./composed.js";
import { LoRALayer, type LoRAOptions } from "./layer.js";
import { checkBase, checkLayer } from "./options.js";
import { runByRows } from "./shares.js";
import { LORA_FIELDS, registerStandard } from "./standard.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** Options of `lora.Embedding`. */
export type LoRAEmbeddingOptions = Omit<LoRAOptions, "loraDropout"> & EmbeddingOptions;

/**
 * y = W[ids] + s·Aᵀ[ids]·Bᵀ. Shapes: A [r, n], B [d, r]. A starts at zero and B as N(0, 1), the reverse of a linear
 * layer, so that the gradient of A has entries only for the ids in the batch. Source: loralib's Embedding.
 */
export class Embedding extends LoRALayer(BaseEmbedding) {
  static {
    const fields = ["numEmbeddings", "embeddingDim", "paddingIdx", "weight"];
    registerStandard(BaseEmbedding, fields);
    registerStandard(this, [...fields, ...LORA_FIELDS]);
  }

  /**
   * Throws `ERR_OPTION` for invalid sizes and for invalid or unknown options, including `loraDropout`; `ERR_OUT_OF_MEMORY`.
   */
  constructor(numEmbeddings: number, embeddingDim: number, options: LoRAEmbeddingOptions = {}) {
    super(
      numEmbeddings,
      embeddingDim,
      checkLayer("lora.Embedding", options, { numEmbeddings, embeddingDim }),
    );
    if ("loraDropout" in options && options.loraDropout)
      throw createRefusal(ADAPTER_REFUSALS.embeddingDropout, "lora.Embedding");
    this.mergeWeights = options.mergeWeights ?? true;
    const { r = 0, loraAlpha = 1 } = options;
    if (r > 0) this.startWith(this.createAdapter({ ...options, r, loraAlpha }));
  }

  /** Makes a low-rank layer from `layer` and shares its weights. */
  static fromBase(layer: BaseEmbedding, options: LoRAEmbeddingOptions = {}): Embedding {
    checkBase("lora.Embedding", layer, BaseEmbedding, "an embedding", options);
    const { weight, numEmbeddings, embeddingDim, paddingIdx } = layer;
    const lora = new Embedding(numEmbeddings, embeddingDim, {
      ...(paddingIdx === undefined ? {} : { paddingIdx }),
      ...options,
      weight,
    });
    lora.training = layer.training;
    return lora;
  }

  /** @internal */
  override toPlain(): BaseEmbedding {
    const { numEmbeddings, embeddingDim, paddingIdx, baseWeight: weight, training } = this;
    const plain = new BaseEmbedding(numEmbeddings, embeddingDim, {
      weight,
      ...(paddingIdx === undefined ? {} : { paddingIdx }),
    });
    return Object.assign(plain, { training });
  }

  /** @internal Returns PEFT's in-memory name of a part. */
  override nameInMemory(adapter: string, part: AdapterPart): string {
    return part === "A" || part === "B"
      ? `lora_embedding_${part}.${adapter}`
      : super.nameInMemory(adapter, part);
  }

  /** @internal Returns the name of a part in PEFT's files. */
  override nameOnDisk(part: AdapterPart): string {
    return part === "A" || part === "B" ? `lora_embedding_${part}` : super.nameOnDisk(part);
  }

  /** @internal The weight is [n, d]. */
  override get outputDim(): number {
    return 1;
  }

  /** @internal Makes A as zeros and B as N(0, 1). */
  override createAdapter(options: FreshOptions): Adapter {
    if (options.loraBias) throw createRefusal(ADAPTER_REFUSALS.embeddingBias, "lora.Embedding");
    const { numEmbeddings, embeddingDim, weight } = this;
    const { device } = weight;
    const { r } = options;
    checkAdapterRoom("lora.Embedding", device, r * (numEmbeddings + embeddingDim));
    const adapter = {
      ...describeAdapter({ ...options, loraDropout: 0 }),
      loraA: makeParameter(zeros([r, numEmbeddings], { device })),
      loraB: makeParameter(drawNormal([embeddingDim, r], 1, { device })),
    };
    return this.completeAdapter(adapter, options);
  }

  /** @internal A [r, n], B [d, r]. */
  override computeStoredShape(part: AdapterPart, r: number): readonly number[] {
    if (part === "A") return [r, this.numEmbeddings];
    return part === "B" ? [this.embeddingDim, r] : [this.embeddingDim];
  }

  /** ids i32 [...] → [..., d]. Throws `ERR_DTYPE`, `ERR_INDEX` for an id out of range, `ERR_DEVICE_MISMATCH`. */
  override forward(ids: Tensor): Tensor {
    if (!this.adapts) return this.runWithBase(() => super.forward(ids));
    checkInput("lora.Embedding", ids, "ids");
    const { baseWeight: weight, paddingIdx } = this;
    return runByRows(this, ids, (part, shares) =>
      composeForward(this, part, shares, {
        base: (given) => recordOp(() => session().embedding(weight.id, given.id, false, paddingIdx)),
        lowRank: (given, { loraA, loraB }, scaling) =>
          recordOp(() => session().embedding(loraA.id, given.id, true, paddingIdx))
            .mul(scaling)
            .matmul(loraB, { transB: true }),
        sum: (given, { loraA, loraB }, scaling) =>
          recordOp(() =>
            session().loraEmbedding(weight.id, given.id, loraA.id, loraB.id, scaling, paddingIdx),
          ),
      }),
    );
  }
}
