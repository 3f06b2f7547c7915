/** Llama for causal language modelling: Llama 2 and 3, SmolLM2, Mistral, Qwen2 and Qwen3. Paths are transformers'. */
import { LowrankError } from "../../errors.js";
import type { Embedding } from "../../nn/embedding.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { RMSNorm } from "../../nn/norm.js";
import { trains } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { KeyValueCache } from "../cache.js";
import { CausalLM, languageHead } from "../causal-lm.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import { chain, checkedLength, type ForwardOptions } from "../pretrained.js";
import { ended, through } from "../stream.js";
import type { Weights } from "../weights.js";
import { LlamaBlock } from "./block.js";
import { hubConfig, llamaConfig, type LlamaConfig, type LlamaConfigFields } from "./config.js";
import { Rotations } from "./rotary.js";
import { MODEL_TYPES } from "./variants.js";

/** Llama without its head. */
export class LlamaModel extends Module {
  /** Embedding of the tokens. */
  embed_tokens: Embedding;
  /** The blocks, in order. */
  layers: LlamaBlock[];
  /** The norm after the last block. */
  norm: RMSNorm;

  /** @internal Built of weights by its model. */
  constructor(config: LlamaConfig, weights: Weights) {
    super();
    const { vocabSize, hiddenSize, padTokenId: pad } = config;
    // Of some files the padding's id is no row.
    const padding = pad !== undefined && pad < vocabSize ? pad : undefined;
    this.embed_tokens = weights.embedding("model.embed_tokens", vocabSize, hiddenSize, padding);
    this.layers = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => new LlamaBlock(config, i, weights),
    );
    this.norm = weights.norm("model.norm", config.hiddenSize, config.rmsNormEps);
  }

  /** Throws `ERR_INTERNAL`: it runs as a part of `LlamaForCausalLM`. */
  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "LlamaModel runs as part of LlamaForCausalLM");
  }
}

/**
 * Llama 2 and 3, SmolLM2, and by their `model_type` Mistral, Qwen2 (2.5 too) and Qwen3. Submodules and keys of `stateDict` are transformers'.
 */
export class LlamaForCausalLM extends CausalLM {
  /** What `config.json` says, in one spelling. */
  readonly config: LlamaConfig & Record<string, unknown>;
  /** Everything but the head. */
  model: LlamaModel;
  /** The output head; its weight is `model.embed_tokens`' where the two are tied. */
  lm_head: Linear;
  /** @internal cos and sin of the positions. */
  readonly tables: Rotations;

  /** @internal */
  constructor(config: LlamaConfig, weights: Weights) {
    super(weights);
    this.config = config as LlamaConfig & Record<string, unknown>;
    this.model = new LlamaModel(config, weights);
    this.lm_head = languageHead(this.model.embed_tokens, config.tieWordEmbeddings, weights);
    this.tables = new Rotations(config);
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), norms
   * 1, biases 0. The same after `manualSeed`. It is in training mode and every weight asks for a gradient, unless
   * stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is missing, senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not
   * built, `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: LlamaConfigFields, options?: FromConfigOptions): LlamaForCausalLM {
    return fromConfig("LlamaForCausalLM.fromConfig", config, options, {
      modelTypes: MODEL_TYPES,
      read: llamaConfig,
      make: (settled, weights) => new LlamaForCausalLM(settled, weights),
    });
  }

  /** @internal The embedding that takes the ids. */
  inputEmbedding(): Embedding {
    return this.model.embed_tokens;
  }

  /** @internal An empty cache. */
  newCache(batch: number, limit: number): KeyValueCache {
    const { numHiddenLayers, numKeyValueHeads, headDim } = this.config;
    return new KeyValueCache(numHiddenLayers, limit, {
      batch,
      heads: numKeyValueHeads,
      headDim,
      device: this.device,
    });
  }

  /** @internal The configuration as `config.json` has it. */
  hubConfig(): Record<string, unknown> {
    return hubConfig(this.config);
  }

  /** @internal ids i32 [B, T] → [B, T, C], after the last norm. */
  hidden(ids: Tensor, { attentionMask, positionIds }: ForwardOptions = {}, cache?: KeyValueCache): Tensor {
    const offset = cache?.length ?? 0;
    const T = checkedLength(ids, offset, this.config.maxPositionEmbeddings);
    // Over a cache, positions are those of padded texts.
    const end = cache === undefined ? undefined : offset + T;
    const inputs = {
      rotation: this.tables.rotation(this.device, offset, T, positionIds, end),
      keyMask: attentionMask,
    };
    const checkpointed = this.gradientCheckpointing && cache === undefined && trains(this);
    const { layers, embed_tokens, norm } = this.model;
    const stream = chain(layers, embed_tokens.forward(ids), checkpointed, (block, y, i) =>
      through(block, LlamaBlock.prototype.forward, y, inputs, cache?.layers[i]),
    );
    return ended(norm, stream);
  }

  override dispose(): void {
    super.dispose();
    this.tables.dispose();
  }
}
