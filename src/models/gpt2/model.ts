/** GPT-2 for causal language modelling. Parameter paths match transformers. */
import { arange } from "../../tensor/create.js";
import { LowrankError } from "../../errors.js";
import { Dropout } from "../../nn/dropout.js";
import type { Embedding } from "../../nn/embedding.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { LayerNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { KeyValueCache } from "../cache.js";
import { CausalLM, takeLanguageHead } from "../causal-lm.js";
import { buildFromConfig, type FromConfigOptions } from "../from-config.js";
import { numberTexts } from "../packed-texts.js";
import { runBlocks, checkLength, replaceLastState, type ForwardOptions } from "../pretrained.js";
import { normaliseEnd, runBlock, type Stream } from "../stream.js";
import { readTokenShape } from "../text-input.js";
import type { Weights } from "../weights.js";
import { GPT2Block } from "./block.js";
import { readGpt2Config, writeGpt2Config, type GPT2Config, type GPT2ConfigFields } from "./config.js";

/** GPT-2 without its head. */
export class GPT2Model extends Module {
  /** The token embedding. */
  wte: Embedding;
  /** The position embedding. */
  wpe: Embedding;
  /** Dropout of their sum. */
  drop: Dropout;
  /** The blocks, from first to last. */
  h: GPT2Block[];
  /** The norm after the last block. */
  ln_f: LayerNorm;

  /** @internal */
  constructor(config: GPT2Config, weights: Weights) {
    super();
    const { hiddenSize: C, numHiddenLayers, layerNormEps } = config;
    this.wte = weights.embedding("transformer.wte", config.vocabSize, C);
    this.wpe = weights.embedding("transformer.wpe", config.maxPositionEmbeddings, C);
    this.drop = new Dropout(config.embdPdrop);
    this.h = Array.from(
      { length: numHiddenLayers },
      (_, i) => new GPT2Block(config, i, `transformer.h.${i}`, weights),
    );
    this.ln_f = weights.layerNorm("transformer.ln_f", C, layerNormEps);
  }

  /** Throws `ERR_INTERNAL`: it runs only as part of `GPT2LMHeadModel`. */
  forward(): never {
    throw new LowrankError("ERR_INTERNAL", "GPT2Model runs as part of GPT2LMHeadModel");
  }
}

/** GPT-2 with its head. Submodules and `stateDict` keys have transformers' names. */
export class GPT2LMHeadModel extends CausalLM {
  /** The fields of `config.json`, in camel case. */
  readonly config: GPT2Config & Record<string, unknown>;
  /** Everything but the head. */
  transformer: GPT2Model;
  /** The output head; it shares the weight of `transformer.wte` where the two are tied. */
  lm_head: Linear;

  /** @internal */
  constructor(config: GPT2Config, weights: Weights) {
    super(weights);
    this.config = config as GPT2Config & Record<string, unknown>;
    this.transformer = new GPT2Model(config, weights);
    this.lm_head = takeLanguageHead(this.transformer.wte, config.tieWordEmbeddings, weights);
  }

  /**
   * Creates a model from transformers' configuration fields, initialised as in transformers: N(0,
   * `initializer_range`²), divided by √(2 · layers) for layers that write to the residual stream, norms 1, biases 0.
   * Reproducible with `manualSeed`. The model is in training mode, and all weights require gradients unless they are
   * f16 or bf16.
   *
   * Throws `ERR_OPTION` for an invalid or unknown field, `ERR_UNSUPPORTED_MODEL` for an unsupported feature,
   * `ERR_NO_GPU`, `ERR_OUT_OF_MEMORY`.
   */
  static fromConfig(config: GPT2ConfigFields, options?: FromConfigOptions): GPT2LMHeadModel {
    return buildFromConfig("GPT2LMHeadModel.fromConfig", config, options, {
      modelTypes: ["gpt2"],
      read: readGpt2Config,
      make: (settled, weights) => new GPT2LMHeadModel(settled, weights),
    });
  }

  /** @internal The token embedding. */
  getInputEmbedding(): Embedding {
    return this.transformer.wte;
  }

  /** @internal Returns an empty KV cache. */
  createCache(batch: number, limit: number): KeyValueCache {
    const { numHiddenLayers, numAttentionHeads: heads, hiddenSize } = this.config;
    const shape = { batch, heads, headDim: hiddenSize / heads, device: this.device };
    return new KeyValueCache(numHiddenLayers, limit, shape);
  }

  /** @internal Returns the configuration as fields of `config.json`. */
  toHubConfig(): Record<string, unknown> {
    return writeGpt2Config(this.config);
  }

  /** @internal Maps ids i32 [B, T] to hidden states [B, T, C] after the last norm. */
  computeHidden(
    ids: Tensor | null,
    options: ForwardOptions = {},
    cache?: KeyValueCache,
    states?: Tensor[],
  ): Tensor {
    const { attentionMask: keyMask, positionIds, inputsEmbeds } = options;
    const start = cache?.length ?? 0;
    const limit = this.config.maxPositionEmbeddings;
    const places = readTokenShape(ids, options);
    const T = checkLength(places, start, limit);
    const { segments } = numberTexts(places, options, { limit, cached: cache !== undefined });
    const { wpe, drop, h, ln_f } = this.transformer;
    const positions = positionIds ?? arange(start + T, { start, device: this.device });
    const words = inputsEmbeds ?? this.embedTokens(ids as Tensor);
    const x = drop.forward(words.add(wpe.forward(positions)));
    const checkpointed = this.gradientCheckpointing && cache === undefined && isTraining(this);
    const run = (block: GPT2Block, y: Stream, i: number): Stream =>
      runBlock(block, y, { keyMask, segments }, cache?.layers[i]);
    return replaceLastState(states, normaliseEnd(ln_f, runBlocks(h, x, checkpointed, run, states)));
  }
}
