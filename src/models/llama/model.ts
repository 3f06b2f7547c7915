/** Llama for causal language modelling: Llama 2 and 3, SmolLM2, Mistral. Paths are transformers'. */
import { LowrankError } from "../../errors.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import { RMSNorm } from "../../nn/norm.js";
import { checkpoint } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { KeyValueCache } from "../cache.js";
import { CausalLM, type ForwardOptions } from "../causal-lm.js";
import { LlamaBlock, type Weights } from "./block.js";
import { hubConfig, ropeFrequencies, type LlamaConfig } from "./config.js";
import { RotaryTables } from "./rotary.js";

/** Where a model's weights come from. */
export interface LlamaWeights extends Weights {
  embedding(path: string, rows: number, size: number): Embedding;
}

/** Everything but the head. */
export class LlamaModel extends Module {
  embed_tokens: Embedding;
  layers: LlamaBlock[];
  norm: RMSNorm;

  constructor(config: LlamaConfig, weights: LlamaWeights) {
    super();
    this.embed_tokens = weights.embedding("model.embed_tokens", config.vocabSize, config.hiddenSize);
    this.layers = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => new LlamaBlock(config, `model.layers.${i}`, weights),
    );
    this.norm = weights.norm("model.norm", config.hiddenSize, config.rmsNormEps);
  }

  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "LlamaModel runs as part of LlamaForCausalLM");
  }
}

export class LlamaForCausalLM extends CausalLM {
  readonly config: LlamaConfig & Record<string, unknown>;
  model: LlamaModel;
  lm_head: Linear;
  readonly tables: RotaryTables;

  constructor(config: LlamaConfig, weights: LlamaWeights) {
    super();
    this.config = config as LlamaConfig & Record<string, unknown>;
    this.model = new LlamaModel(config, weights);
    this.lm_head = config.tieWordEmbeddings
      ? new Linear(config.hiddenSize, config.vocabSize, {
          bias: false,
          weight: this.model.embed_tokens.weight,
        })
      : weights.linear("lm_head", config.hiddenSize, config.vocabSize, false);
    this.tables = new RotaryTables(ropeFrequencies(config), config.maxPositionEmbeddings);
  }

  inputEmbedding(): Embedding {
    return this.model.embed_tokens;
  }

  newCache(batch: number, capacity: number): KeyValueCache {
    const { numHiddenLayers, numKeyValueHeads, headDim } = this.config;
    return new KeyValueCache(numHiddenLayers, capacity, {
      batch,
      heads: numKeyValueHeads,
      headDim,
      device: this.device,
    });
  }

  hubConfig(): Record<string, unknown> {
    return hubConfig(this.config);
  }

  hidden(ids: Tensor, { attentionMask, positionIds }: ForwardOptions = {}, cache?: KeyValueCache): Tensor {
    if (ids.shape.length !== 2) {
      throw new LowrankError("ERR_SHAPE_MISMATCH", `forward: ids are [B, T], not [${ids.shape.join(", ")}]`);
    }
    const T = ids.shape[1] as number;
    const offset = cache?.length ?? 0;
    if (offset + T > this.config.maxPositionEmbeddings) {
      throw new LowrankError(
        "ERR_INDEX",
        `forward: ${offset + T} tokens are more than the model's longest text, ${this.config.maxPositionEmbeddings}`,
      );
    }
    const inputs = {
      rotation: this.tables.rotation(this.device, offset, T, positionIds),
      keyMask: attentionMask,
    };
    let x = this.model.embed_tokens.forward(ids);
    for (const [i, block] of this.model.layers.entries()) {
      x =
        this.gradientCheckpointing && this.training && cache === undefined
          ? checkpoint(() => block.forward(x, inputs))
          : block.forward(x, inputs, cache?.layers[i]);
    }
    return this.model.norm.forward(x);
  }

  override dispose(): void {
    super.dispose();
    this.tables.dispose();
  }
}
