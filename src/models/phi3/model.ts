/** Phi-3 and Phi-4 for causal language modelling. Paths are transformers'. */
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
import { Rotations } from "../llama/rotary.js";
import { chain, checkedLength, type ForwardOptions } from "../pretrained.js";
import { ended, through } from "../stream.js";
import type { Weights } from "../weights.js";
import { Phi3Block } from "./block.js";
import { phi3Config, hubConfig, type Phi3Config, type Phi3ConfigFields } from "./config.js";

/** Phi-3 without its head. */
export class Phi3Model extends Module {
  /** Embedding of the tokens. */
  embed_tokens: Embedding;
  /** The blocks, in order. */
  layers: Phi3Block[];
  /** The norm after the last block. */
  norm: RMSNorm;

  /** @internal Built of weights by its model. */
  constructor(config: Phi3Config, weights: Weights) {
    super();
    const { vocabSize, hiddenSize, padTokenId: pad } = config;
    const padding = pad !== undefined && pad < vocabSize ? pad : undefined;
    this.embed_tokens = weights.embedding("model.embed_tokens", vocabSize, hiddenSize, padding);
    this.layers = Array.from({ length: config.numHiddenLayers }, (_, i) => new Phi3Block(config, i, weights));
    this.norm = weights.norm("model.norm", hiddenSize, config.rmsNormEps);
  }

  /** Throws `ERR_INTERNAL`: it runs as a part of `Phi3ForCausalLM`. */
  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "Phi3Model runs as part of Phi3ForCausalLM");
  }
}

/** Phi-3 and Phi-4, by the `model_type` `phi3`. Submodules and keys of `stateDict` are transformers'. */
export class Phi3ForCausalLM extends CausalLM {
  /** What `config.json` says, in one spelling. */
  readonly config: Phi3Config & Record<string, unknown>;
  /** Everything but the head. */
  model: Phi3Model;
  /** The output head; its weight is `model.embed_tokens`' where the two are tied. */
  lm_head: Linear;
  /** @internal cos and sin of the positions. */
  readonly tables: Rotations;

  /** @internal */
  constructor(config: Phi3Config, weights: Weights) {
    super(weights);
    this.config = config as Phi3Config & Record<string, unknown>;
    this.model = new Phi3Model(config, weights);
    this.lm_head = languageHead(this.model.embed_tokens, config.tieWordEmbeddings, weights);
    this.tables = new Rotations(config);
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), norms
   * 1. The same after `manualSeed`. It is in training mode and every weight asks for a gradient, unless
   * stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is missing, senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not
   * built, `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: Phi3ConfigFields, options?: FromConfigOptions): Phi3ForCausalLM {
    return fromConfig("Phi3ForCausalLM.fromConfig", config, options, {
      modelTypes: ["phi3"],
      read: phi3Config,
      make: (settled, weights) => new Phi3ForCausalLM(settled, weights),
    });
  }

  /** @internal The embedding that takes the ids. */
  inputEmbedding(): Embedding {
    return this.model.embed_tokens;
  }

  /** @internal An empty cache. */
  newCache(batch: number, limit: number): KeyValueCache {
    const { numHiddenLayers, numKeyValueHeads: heads, headDim } = this.config;
    return new KeyValueCache(numHiddenLayers, limit, { batch, heads, headDim, device: this.device });
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
      through(block, Phi3Block.prototype.forward, y, inputs, cache?.layers[i]),
    );
    return ended(norm, stream);
  }

  override dispose(): void {
    super.dispose();
    this.tables.dispose();
  }
}
