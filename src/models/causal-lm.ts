/** What every causal language model offers, whatever its family. */
import { refuse } from "../argument.js";
import type { Device } from "../device.js";
import { perRow } from "../lora/adapter/per-row.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { KeyValueCache } from "./cache.js";
import type { GenerateOptions } from "./generate-options.js";
import { generateBatch, type GenerateBatchOptions, type Pieces } from "./generate-batch.js";
import { generate, type Piece, type Prompt } from "./generate.js";
import { shiftedTargets, softcapped } from "./head-loss.js";
import { causalOutput } from "./output.js";
import {
  forwardOptions,
  type ForwardOptions,
  type ForwardOutput,
  type LossOptions,
  PretrainedModel,
} from "./pretrained.js";
import { placesOf } from "./text-input.js";
import { tokenLoss } from "./token-loss.js";
import type { Weights } from "./weights.js";

/** What generation and training ask of a family's configuration. */
export interface CausalConfig {
  /** The family, as `model_type` names it. */
  modelType: string;
  /** Rows of the input embedding, and logits of a token. */
  vocabSize: number;
  /** Tokens of the longest text. */
  maxPositionEmbeddings: number;
  /** Each of them ends a generation. */
  eosTokenIds: readonly number[];
  /** The id that texts begin with; undefined for none. */
  bosTokenId: number | undefined;
}

/** What every causal language model offers, whatever its family. */
export abstract class CausalLM extends PretrainedModel {
  /** What `config.json` says, in one spelling. */
  abstract override readonly config: CausalConfig & Record<string, unknown>;
  /** The output head [C] → [V]; its weight is the input embedding's where the two are tied. */
  abstract lm_head: Linear;
  /** PEFT's name of the task. */
  readonly taskType = "CAUSAL_LM";
  /** @internal The path of the head, which `all-linear` leaves alone. */
  readonly outputHead = "lm_head";

  /**
   * @internal ids i32 [B, T], or null with `inputsEmbeds`, → [B, T, C], after the last norm; `states` collects the hidden
   * states.
   */
  abstract hidden(
    ids: Tensor | null,
    options?: ForwardOptions,
    cache?: KeyValueCache,
    states?: Tensor[],
  ): Tensor;
  /** @internal The embedding that takes the ids. */
  abstract inputEmbedding(): Embedding;
  /** The token embeddings of ids i32 [B, T], as `inputsEmbeds` of `forward` takes them: [B, T, C]. */
  embedTokens(ids: Tensor): Tensor {
    return this.inputEmbedding().forward(ids);
  }

  /** @internal An empty cache for `batch` texts of at most `limit` tokens; it grows as they do. */
  abstract newCache(batch: number, limit: number): KeyValueCache;

  /** Where its weights are: `cpu`, `gpu:0`. */
  get device(): Exclude<Device, "auto"> {
    return this.inputEmbedding().weight.device;
  }

  /** @internal Logits are within ± this, as c · tanh(x / c); undefined where they are not capped. */
  get logitSoftcap(): number | undefined {
    return undefined;
  }

  /** @internal The length of a text above which its positions are told apart by other frequencies. */
  get turningPoint(): number {
    return Infinity;
  }

  /** @internal What of the configuration has changed since it was read. */
  override configChanges(): Record<string, unknown> {
    // A head or an embedding that was trained alone is tied no more.
    return { tie_word_embeddings: this.lm_head.weight === this.inputEmbedding().weight };
  }

  /**
   * ids i32 [B, T], or null with `inputsEmbeds`, → hidden [B, T, C], and the loss where labels are given: a scalar, or without a reduction [B, T],
   * whose (b, t) is the loss of position t, which says label t + 1; the last of each row, and those without a label,
   * are 0. Neither is `logits` [B, T, V] made before it is first read, nor does the loss ever hold them. Rows without a
   * label are not computed where labels are an Int32Array, or a tensor that `tensor` made of one.
   *
   * Throws `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, `ERR_INDEX` for a label that is no token or a text that is too long,
   * `ERR_OPTION`, `ERR_UNKNOWN_ADAPTER`. Reading `logits` throws `ERR_DISPOSED` where the scope that forward was called
   * in is over and the output was not returned from it, and `ERR_MODIFIED` where the head has changed since.
   */
  override forward(ids: Tensor | null, options: ForwardOptions = {}): ForwardOutput {
    const { embeddingDim } = this.inputEmbedding();
    const wanted = { ...forwardOptions(ids, options, embeddingDim), softcap: this.logitSoftcap };
    const { labels, adapterPerRow: names } = wanted;
    const head = this.lm_head;
    const places = placesOf(ids, wanted);
    const targets = labels === undefined ? undefined : shiftedTargets(places, labels, head.outFeatures);
    const batch = places.shape[0] as number;
    const states: Tensor[] | undefined = wanted.outputHiddenStates === true ? [] : undefined;
    const hidden = perRow(this, batch, names, () => this.hidden(ids, options, undefined, states));
    const loss = targets && scope(() => tokenLoss(this, head, hidden, targets, wanted));
    targets?.tensor.dispose();
    const logits = (): Tensor => perRow(this, batch, names, () => this.logitsOf(hidden, head));
    return causalOutput(head, { hidden, loss, hiddenStates: states }, logits);
  }

  /** @internal hidden [.., C] → the head's logits [.., V], capped where the family caps them. */
  logitsOf(hidden: Tensor, head = this.lm_head): Tensor {
    return softcapped(head.forward(hidden), this.logitSoftcap);
  }

  /**
   * The loss alone: `forward(ids, { labels, ...options }).loss`, with nothing else kept.
   *
   * Shapes: ids i32 [B, T]; labels as many, −100 where ignored, shifted by one inside; a scalar, or [B, T] where the
   * reduction is `none`. Throws what `forward` does.
   */
  loss(ids: Tensor | null, labels: Tensor | Int32Array, options: LossOptions = {}): Tensor {
    if (labels === undefined) refuse("loss", "labels", "an i32 tensor or an Int32Array", labels);
    return scope(() => this.forward(ids, { ...options, labels }).loss as Tensor);
  }

  /**
   * Yields what comes after `prompt`, token by token, each once, without the end token and without a stop. Its
   * dropout is off, whatever `training` says, which it leaves alone; layers are not merged for it. A piece whose text
   * may yet change (a part of a letter, the beginning of a stop) waits for the next. Ending the loop ends the work.
   * Where a text passes the length from which LongRoPE has other frequencies, the keys before keep those that they were
   * made with; transformers computes Phi-3's anew there.
   *
   * Throws `ERR_OPTION` for an option that is unknown or out of range, and for a prompt without tokens or as long as
   * the model's longest text; `ERR_INDEX` for an id that is no token; `ERR_NOT_FINITE` where a logit is NaN;
   * `ERR_CHAT_TEMPLATE` for messages that the model has no chat template for, or one that refuses them; the signal's
   * reason.
   */
  generate(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<Piece, void, void> {
    return generate(this, prompt, options);
  }

  /**
   * `generate` for several prompts at once: yields arrays with an entry a prompt, its next piece, or null where it
   * has none: one that has ended, or whose piece waits. The shorter prompts are padded on the left, which nothing
   * sees; each is given the tokens that `generate` gives it alone with the same options and seed, as far as rounding
   * does not turn a near tie, and as long as all are within the length up to which LongRoPE's frequencies are those of
   * short texts: the longest has a say in them for all, as in training. One that ends leaves the batch. An empty array of
   * prompts yields nothing.
   *
   * Throws as `generate` does, naming the prompt, `ERR_UNKNOWN_ADAPTER`, and `ERR_OPTION` unless `seed` and
   * `adapterPerRow`, where they are arrays, have one value a prompt.
   */
  generateBatch(
    prompts: readonly Prompt[],
    options?: GenerateBatchOptions,
  ): AsyncGenerator<Pieces, void, void> {
    return generateBatch(this, prompts, options);
  }
}

/** The output head at `path`, without a bias: the embedding's own weight where the two are tied. */
export function languageHead(
  embedding: Embedding,
  tied: boolean,
  weights: Weights,
  path = "lm_head",
): Linear {
  const { numEmbeddings: V, embeddingDim: C, weight } = embedding;
  return tied ? new Linear(C, V, { bias: false, weight }) : weights.linear(path, C, V, false);
}
