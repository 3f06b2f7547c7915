/**
 * Language models in transformers' layout `model.{embed_tokens, layers, norm}` and `lm_head`, with rotary positions.
 */
import { LowrankError } from "../../errors.js";
import type { Embedding } from "../../nn/embedding.js";
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { RMSNorm } from "../../nn/norm.js";
import { isTraining } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { KeyValueCache, type LayerCache } from "../cache.js";
import { CausalLM, takeLanguageHead } from "../causal-lm.js";
import type { DecoderConfig } from "./config.js";
import type { BlockInputs } from "./attention.js";
import { Rotations } from "./rotary.js";
import { numberTexts } from "../packed-texts.js";
import { runBlocks, checkLength, replaceLastState, type ForwardOptions } from "../pretrained.js";
import { normaliseEnd, runBlock, type ResidualBlock, type Stream } from "../stream.js";
import { readTokenShape } from "../text-input.js";
import type { Weights } from "../weights.js";

/** A block of a rotary language model. */
export interface DecoderBlock extends ResidualBlock<[inputs: BlockInputs, cache?: LayerCache]> {
  /** Whether it uses the second rotation table, for sliding-window layers. */
  readonly slides?: boolean;
}

/** A rotary language model without its head. */
export abstract class DecoderModel<Block extends DecoderBlock> extends Module {
  /** The token embedding. */
  embed_tokens: Embedding;
  /** The blocks, from first to last. */
  layers: Block[];
  /** The norm after the last block. */
  norm: RMSNorm;

  /** @internal */
  constructor(
    config: DecoderConfig,
    weights: Weights,
    block: (index: number) => Block,
    norm: () => RMSNorm = () => weights.norm("model.norm", config.hiddenSize, config.rmsNormEps),
  ) {
    super();
    const { vocabSize, hiddenSize, numHiddenLayers: length, padTokenId: pad } = config;
    // In some files the padding id is outside the embedding.
    const padding = pad !== undefined && pad < vocabSize ? pad : undefined;
    this.embed_tokens = weights.embedding("model.embed_tokens", vocabSize, hiddenSize, {
      paddingIdx: padding,
    });
    this.layers = Array.from({ length }, (_, i) => block(i));
    this.norm = norm();
  }

  /** Throws `ERR_INTERNAL`: it runs only as part of its model. */
  forward(): never {
    throw new LowrankError("ERR_INTERNAL", `${this.constructor.name} runs as part of a model with a head`);
  }
}

/** A rotary language model with its head. */
export abstract class Decoder<
  Config extends DecoderConfig,
  Block extends DecoderBlock,
  Model extends DecoderModel<Block>,
> extends CausalLM {
  /** The fields of `config.json`, in camel case. */
  readonly config: Config & Record<string, unknown>;
  /** Everything but the head. */
  model: Model;
  /** The output head; it shares the weight of `model.embed_tokens` where the two are tied. */
  lm_head: Linear;
  /** @internal The rotation tables: one for all layers, or one for full and one for sliding-window layers. */
  readonly tables: readonly Rotations[];

  /** @internal */
  constructor(
    config: Config,
    weights: Weights,
    model: () => Model,
    tables: () => readonly Rotations[] = () => [new Rotations(config)],
  ) {
    // The base class rejects a direct call of the constructor before anything is built.
    super(weights);
    this.config = config as Config & Record<string, unknown>;
    this.model = model();
    this.lm_head = takeLanguageHead(this.model.embed_tokens, config.tieWordEmbeddings, weights);
    this.tables = tables();
  }

  /** @internal The token embedding. */
  getInputEmbedding(): Embedding {
    return this.model.embed_tokens;
  }

  /** @internal The text length above which LongRoPE switches to its long frequencies; Infinity without LongRoPE. */
  override get turningPoint(): number {
    return Math.min(...this.tables.map((tables) => tables.turningPoint));
  }

  /** @internal Returns an empty KV cache. */
  createCache(batch: number, limit: number): KeyValueCache {
    const { numHiddenLayers, numKeyValueHeads: heads, headDim } = this.config;
    return new KeyValueCache(numHiddenLayers, limit, { batch, heads, headDim, device: this.device });
  }

  /** @internal Maps ids i32 [B, T] to hidden states [B, T, C] after the last norm. */
  computeHidden(
    ids: Tensor | null,
    options: ForwardOptions = {},
    cache?: KeyValueCache,
    states?: Tensor[],
  ): Tensor {
    const { attentionMask: keyMask, positionIds, inputsEmbeds } = options;
    const offset = cache?.length ?? 0;
    const limit = this.config.maxPositionEmbeddings;
    const places = readTokenShape(ids, options);
    const T = checkLength(places, offset, limit);
    const texts = numberTexts(places, options, { limit, cached: cache !== undefined });
    // With a cache, explicit positions come from padding on the left, so the cached length bounds them.
    const end = texts.end ?? (cache === undefined ? undefined : offset + T);
    const inputs = this.tables.map((tables) => ({
      rotation: tables.selectRotation(this.device, offset, T, positionIds, end),
      keyMask,
      segments: texts.segments,
    }));
    const checkpointed = this.gradientCheckpointing && cache === undefined && isTraining(this);
    const { layers, norm } = this.model;
    const run = (block: Block, y: Stream, i: number): Stream => {
      const blockInputs = inputs[block.slides === true ? 1 : 0] as BlockInputs;
      return runBlock(block, y, blockInputs, cache?.layers[i]);
    };
    const x = inputsEmbeds ?? this.embedTokens(ids as Tensor);
    return replaceLastState(states, normaliseEnd(norm, runBlocks(layers, x, checkpointed, run, states)));
  }

  override dispose(): void {
    super.dispose();
    for (const tables of this.tables) tables.dispose();
  }
}
