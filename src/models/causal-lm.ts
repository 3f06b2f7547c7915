/** The base class of causal language models. */
import { refuse } from "../arguments/check.js";
import type { Device } from "../device/device.js";
import { runPerRow } from "../lora/adapter/per-row.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { KeyValueCache } from "./cache.js";
import type { GenerateOptions } from "./generate-options.js";
import { generateBatch, type GenerateBatchOptions, type Pieces } from "./generate-batch.js";
import { generate, type Piece, type Prompt } from "./generate.js";
import { shiftTargets, applySoftcap } from "./head-loss.js";
import { createCausalOutput } from "./output.js";
import {
  checkForwardOptions,
  type ForwardOptions,
  type ForwardOutput,
  type LossOptions,
  PretrainedModel,
} from "./pretrained.js";
import { readTokenShape } from "./text-input.js";
import { computeTokenLoss } from "./token-loss.js";
import type { Weights } from "./weights.js";

/** Configuration fields that generation and training read. */
export interface CausalConfig {
  /** The family: `model_type`. */
  modelType: string;
  /** Rows of the input embedding and size of the logits. */
  vocabSize: number;
  /** The longest text, in tokens. */
  maxPositionEmbeddings: number;
  /** Ids that end a generation. */
  eosTokenIds: readonly number[];
  /** The id at the start of a text; undefined for none. */
  bosTokenId: number | undefined;
}

/** The base class of causal language models. */
export abstract class CausalLM extends PretrainedModel {
  /** The fields of `config.json`, in camel case. */
  abstract override readonly config: CausalConfig & Record<string, unknown>;
  /** The output head [C] → [V]; it shares the input embedding's weight where the two are tied. */
  abstract lm_head: Linear;
  /** The task in PEFT's terms. */
  readonly taskType = "CAUSAL_LM";
  /** @internal The path of the head, which the target `all-linear` excludes. */
  readonly outputHead = "lm_head";

  /**
   * @internal Maps ids i32 [B, T], or null with `inputsEmbeds`, to hidden states [B, T, C] after the last norm. Hidden
   * states of the blocks are pushed to `states`.
   */
  abstract computeHidden(
    ids: Tensor | null,
    options?: ForwardOptions,
    cache?: KeyValueCache,
    states?: Tensor[],
  ): Tensor;
  /** @internal The token embedding. */
  abstract getInputEmbedding(): Embedding;
  /** Returns the token embeddings [B, T, C] of ids i32 [B, T], as `inputsEmbeds` of `forward` expects them. */
  embedTokens(ids: Tensor): Tensor {
    return this.getInputEmbedding().forward(ids);
  }

  /** @internal Returns an empty KV cache for `batch` texts of at most `limit` tokens; it grows on demand. */
  abstract createCache(batch: number, limit: number): KeyValueCache;

  /** The device of the weights: `cpu`, `gpu:0`. */
  get device(): Exclude<Device, "auto"> {
    return this.getInputEmbedding().weight.device;
  }

  /** @internal The cap c of logits, c · tanh(x / c); undefined for none. */
  get logitSoftcap(): number | undefined {
    return undefined;
  }

  /** @internal The text length above which LongRoPE switches to its long frequencies; Infinity without LongRoPE. */
  get turningPoint(): number {
    return Infinity;
  }

  /** @internal Configuration fields that have changed since loading. */
  override listConfigChanges(): Record<string, unknown> {
    // Training only the head or only the embedding unties them.
    return { tie_word_embeddings: this.lm_head.weight === this.getInputEmbedding().weight };
  }

  /**
   * Maps ids i32 [B, T], or null with `inputsEmbeds`, to hidden states [B, T, C], and computes the loss where labels
   * are given. The loss is a scalar, or [B, T] without a reduction, where (b, t) is the loss of predicting label t + 1
   * at position t; the last position of a row and those without a label are 0. `logits` [B, T, V] are computed on first
   * access, and the loss never materialises them. Rows without a label are skipped where labels are an Int32Array or a
   * tensor created from one.
   *
   * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX` for a label outside the vocabulary or a text that is too
   * long, `ERR_OPTION`, `ERR_UNKNOWN_ADAPTER`. Reading `logits` throws `ERR_DISPOSED` where the scope around forward
   * has ended and the output was not returned from it, and `ERR_MODIFIED` where the head has changed since.
   */
  override forward(ids: Tensor | null, options: ForwardOptions = {}): ForwardOutput {
    const { embeddingDim } = this.getInputEmbedding();
    const wanted = { ...checkForwardOptions(ids, options, embeddingDim), softcap: this.logitSoftcap };
    const { labels, adapterPerRow: names } = wanted;
    const head = this.lm_head;
    const places = readTokenShape(ids, wanted);
    const targets = labels === undefined ? undefined : shiftTargets(places, labels, head.outFeatures);
    const batch = places.shape[0] as number;
    const states: Tensor[] | undefined = wanted.outputHiddenStates === true ? [] : undefined;
    const hidden = runPerRow(this, batch, names, () => this.computeHidden(ids, options, undefined, states));
    const loss = targets && scope(() => computeTokenLoss(this, head, hidden, targets, wanted));
    targets?.tensor.dispose();
    const logits = (): Tensor => runPerRow(this, batch, names, () => this.computeLogits(hidden, head));
    return createCausalOutput(head, { hidden, loss, hiddenStates: states }, logits);
  }

  /** @internal Maps hidden [.., C] to logits [.., V], with the family's cap applied. */
  computeLogits(hidden: Tensor, head = this.lm_head): Tensor {
    return applySoftcap(head.forward(hidden), this.logitSoftcap);
  }

  /**
   * Returns only the loss: `forward(ids, { labels, ...options }).loss`. Frees the other outputs.
   *
   * Shapes: ids i32 [B, T]; labels the same, −100 where ignored, shifted internally; returns a scalar, or [B, T] with
   * the reduction `none`. Throws as `forward` does.
   */
  loss(ids: Tensor | null, labels: Tensor | Int32Array, options: LossOptions = {}): Tensor {
    if (labels === undefined) refuse("loss", "labels", "an i32 tensor or an Int32Array", labels);
    return scope(() => this.forward(ids, { ...options, labels }).loss as Tensor);
  }

  /**
   * Generates a continuation of `prompt`. Yields each token once, without the end token and without stop strings. A
   * piece whose text may still change (an incomplete character, the beginning of a stop string) is held back until
   * later tokens settle it. Leaving the loop stops the generation. Dropout is off, whatever the model's `training`
   * flag, which stays unchanged; adapters are not merged.
   *
   * Where a text grows beyond the length at which LongRoPE switches frequencies, earlier keys keep the short
   * frequencies; for Phi-3, transformers recomputes them.
   *
   * Throws `ERR_OPTION` for an option that is unknown or out of range, and for a prompt that is empty or as long as the
   * model's longest text; `ERR_INDEX` for an id outside the vocabulary; `ERR_NOT_FINITE` for a NaN logit;
   * `ERR_CHAT_TEMPLATE` for messages without a chat template, or rejected by it; the signal's reason.
   */
  generate(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<Piece, void, void> {
    return generate(this, prompt, options);
  }

  /**
   * Generates continuations of several prompts at once. Yields arrays with one entry per prompt: its next piece, or
   * null where it has ended or its piece is held back. Shorter prompts are padded on the left, and the padding is
   * masked. Finished prompts leave the batch. An empty array of prompts yields nothing.
   *
   * Each prompt gets the same tokens as from `generate` with the same options and seed, except where rounding decides
   * between nearly equal logits, or where the longest prompt makes LongRoPE switch frequencies for the whole batch.
   *
   * Throws as `generate` does, naming the prompt, `ERR_UNKNOWN_ADAPTER`, and `ERR_OPTION` where the array `seed` or
   * `adapterPerRow` does not have one value per prompt.
   */
  generateBatch(
    prompts: readonly Prompt[],
    options?: GenerateBatchOptions,
  ): AsyncGenerator<Pieces, void, void> {
    return generateBatch(this, prompts, options);
  }
}

/** Returns the output head at `path`, without a bias; it shares the embedding's weight where the two are tied. */
export function takeLanguageHead(
  embedding: Embedding,
  tied: boolean,
  weights: Weights,
  path = "lm_head",
): Linear {
  const { numEmbeddings: V, embeddingDim: C, weight } = embedding;
  return tied ? new Linear(C, V, { bias: false, weight }) : weights.linear(path, C, V, false);
}
