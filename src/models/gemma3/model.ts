/** Gemma 3 for causal language modelling. Paths are transformers'. */
import { LowrankError } from "../../errors.js";
import type { Embedding } from "../../nn/embedding.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import { trains } from "../../scope.js";
import type { Tensor } from "../../tensor.js";
import { KeyValueCache } from "../cache.js";
import { CausalLM, languageHead } from "../causal-lm.js";
import { fromConfig, type FromConfigOptions } from "../from-config.js";
import { Rotations } from "../llama/rotary.js";
import { chain, checkedLength, type ForwardOptions } from "../pretrained.js";
import { ended, through } from "../stream.js";
import type { Weights } from "../weights.js";
import { Gemma3Block } from "./block.js";
import { gemma3Config, hubConfig, type Gemma3Config, type Gemma3ConfigFields } from "./config.js";
import { gemmaNorm, type Gemma3RMSNorm } from "./norm.js";

/** Gemma 3 without its head. */
export class Gemma3TextModel extends Module {
  /** Embedding of the tokens, which is multiplied by √C. */
  embed_tokens: Embedding;
  /** The blocks, in order. */
  layers: Gemma3Block[];
  /** The norm after the last block. */
  norm: Gemma3RMSNorm;

  /** @internal Built of weights by its model. */
  constructor(config: Gemma3Config, weights: Weights) {
    super();
    const { vocabSize, hiddenSize, padTokenId: pad } = config;
    const padding = pad !== undefined && pad < vocabSize ? pad : undefined;
    this.embed_tokens = weights.embedding("model.embed_tokens", vocabSize, hiddenSize, padding);
    this.layers = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => new Gemma3Block(config, i, weights),
    );
    this.norm = gemmaNorm(weights, "model.norm", hiddenSize, config.rmsNormEps);
  }

  /** Throws `ERR_INTERNAL`: it runs as a part of `Gemma3ForCausalLM`. */
  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "Gemma3TextModel runs as part of Gemma3ForCausalLM");
  }
}

/** The language models of Gemma 3, `gemma3_text`. Submodules and keys of `stateDict` are transformers'. */
export class Gemma3ForCausalLM extends CausalLM {
  /** What `config.json` says, in one spelling. */
  readonly config: Gemma3Config & Record<string, unknown>;
  /** Everything but the head. */
  model: Gemma3TextModel;
  /** The output head; its weight is `model.embed_tokens`' where the two are tied. */
  lm_head: Linear;
  /** @internal cos and sin of the positions, of the layers that see all and of those that slide. */
  readonly tables: { full: Rotations; sliding: Rotations };

  /** @internal */
  constructor(config: Gemma3Config, weights: Weights) {
    super(weights);
    this.config = config as Gemma3Config & Record<string, unknown>;
    this.model = new Gemma3TextModel(config, weights);
    this.lm_head = languageHead(this.model.embed_tokens, config.tieWordEmbeddings, weights);
    this.tables = {
      full: new Rotations(config),
      sliding: new Rotations({ ...config, rope: config.slidingRope }),
    };
  }

  /**
   * A model of transformers' configuration fields, drawn anew as transformers does: N(0, `initializer_range`²), norms
   * and biases 0. The same after `manualSeed`. It is in training mode and every weight asks for a gradient, unless
   * stored as f16 or bf16.
   *
   * Throws `ERR_OPTION` for a field that is missing, senseless or unknown, `ERR_UNSUPPORTED_MODEL` for what is not
   * built, `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: Gemma3ConfigFields, options?: FromConfigOptions): Gemma3ForCausalLM {
    return fromConfig("Gemma3ForCausalLM.fromConfig", config, options, {
      modelTypes: ["gemma3_text"],
      read: gemma3Config,
      make: (settled, weights) => new Gemma3ForCausalLM(settled, weights),
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
    const { maxPositionEmbeddings, hiddenSize } = this.config;
    const T = checkedLength(ids, offset, maxPositionEmbeddings);
    const end = cache === undefined ? undefined : offset + T;
    const of = (tables: Rotations) => ({
      rotation: tables.rotation(this.device, offset, T, positionIds, end),
      keyMask: attentionMask,
    });
    const inputs = { full: of(this.tables.full), sliding: of(this.tables.sliding) };
    const checkpointed = this.gradientCheckpointing && cache === undefined && trains(this);
    const { layers, embed_tokens, norm } = this.model;
    const x = embed_tokens.forward(ids).mul(Math.sqrt(hiddenSize));
    const stream = chain(layers, x, checkpointed, (block, y, i) =>
      through(
        block,
        Gemma3Block.prototype.forward,
        y,
        block.slides ? inputs.sliding : inputs.full,
        cache?.layers[i],
      ),
    );
    return ended(norm, stream);
  }

  override dispose(): void {
    super.dispose();
    this.tables.full.dispose();
    this.tables.sliding.dispose();
  }
}
