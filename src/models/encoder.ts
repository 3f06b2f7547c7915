/** What every encoder of texts offers. */
import { LowrankError } from "../errors.js";
import { perRow } from "../lora/adapter/per-row.js";
import type { Embedding } from "../nn/embedding.js";
import { Module } from "../nn/module.js";
import { trains } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { BlocksConfig } from "./config-parts.js";
import { embed, type EmbedOptions } from "./embed.js";
import {
  chain,
  checkedLength,
  forwardOptions,
  type ForwardOptions,
  type ModelOutput,
  PretrainedModel,
} from "./pretrained.js";
import { joined, type Stream } from "./stream.js";
import { placesOf } from "./text-input.js";

/** A block that attends to all tokens. */
type EncoderBlock = Module & { forward(x: Tensor, mask: Tensor | undefined): Tensor };

/** The blocks of an encoder. */
export abstract class EncoderBlocks<Block extends EncoderBlock> extends Module {
  /** The blocks, in order. */
  layer: Block[];

  /** @internal Built of weights by its model. */
  constructor({ numHiddenLayers: length }: BlocksConfig, block: (index: number) => Block) {
    super();
    this.layer = Array.from({ length }, (_, i) => block(i));
  }

  /** x [B, T, C] → [B, T, C]; `mask` i32 [B, T] hides keys where it is 0. */
  forward(x: Tensor, mask: Tensor | undefined, checkpointed: boolean, states?: Tensor[]): Tensor {
    const run = (block: Block, y: Stream): Stream => ({ x: block.forward(y.x, mask) });
    return joined(chain(this.layer, x, checkpointed, run, states));
  }
}

/** What every encoder of texts offers. */
export abstract class TextEncoder extends PretrainedModel {
  /** What `config.json` says, in one spelling. */
  abstract override readonly config: {
    /** Tokens of the longest text. */
    maxPositionEmbeddings: number;
    /** The id of padding; undefined for none. */
    padTokenId: number | undefined;
  } & Record<string, unknown>;
  /** PEFT's name of the task. */
  readonly taskType = "FEATURE_EXTRACTION";

  /** Embedding of the tokens, and what is added to it. */
  abstract readonly embeddings: Module & {
    /** Embedding of the tokens. */
    word_embeddings: Embedding;
    /** ids i32 [B, T], or null with `inputsEmbeds`, → [B, T, C]. */
    forward(ids: Tensor | null, options: ForwardOptions): Tensor;
  };
  /** @internal The blocks, whatever transformers calls them. */
  protected abstract get blocks(): EncoderBlocks<EncoderBlock>;

  /** Where its weights are: `cpu`, `gpu:0`. */
  get device() {
    return this.embeddings.word_embeddings.weight.device;
  }

  /** The token embeddings of ids i32 [B, T], as `inputsEmbeds` of `forward` takes them: [B, T, C]. */
  embedTokens(ids: Tensor): Tensor {
    return this.embeddings.word_embeddings.forward(ids);
  }

  /**
   * @internal ids i32 [B, T], or null with `inputsEmbeds`, → [B, T, C], after the last norm; `states` collects the hidden
   * states.
   */
  hidden(ids: Tensor | null, options: ForwardOptions = {}, states?: Tensor[]): Tensor {
    checkedLength(placesOf(ids, options), 0, this.config.maxPositionEmbeddings);
    const x = this.embeddings.forward(ids, options);
    const checkpointed = this.gradientCheckpointing && trains(this);
    return this.blocks.forward(x, options.attentionMask, checkpointed, states);
  }

  /**
   * ids i32 [B, T], or null with `inputsEmbeds`, → hidden [B, T, C]. Throws `ERR_SHAPE_MISMATCH`, `ERR_INDEX` for a text that is too long,
   * `ERR_OPTION`, among others for labels, which need a head, `ERR_UNKNOWN_ADAPTER`.
   */
  override forward(ids: Tensor | null, options: ForwardOptions = {}): ModelOutput {
    const { labels, outputHiddenStates } = forwardOptions(
      ids,
      options,
      this.embeddings.word_embeddings.embeddingDim,
    );
    if (labels !== undefined)
      throw new LowrankError("ERR_OPTION", "forward: an encoder has no head, and takes no labels");
    const batch = placesOf(ids, options).shape[0] as number;
    const states: Tensor[] | undefined = outputHiddenStates === true ? [] : undefined;
    const hidden = perRow(this, batch, options.adapterPerRow, () => this.hidden(ids, options, states));
    return states === undefined ? { hidden } : { hidden, hiddenStates: states };
  }

  /**
   * One vector [C] a text. Pooling, normalisation, the longest text and the prompt are those of the folder's modules
   * (sentence-transformers), else the mean over the text's tokens, of length 1; options override them. A text that is too
   * long loses its end.
   *
   * Throws `ERR_FILE_NOT_FOUND` for a model without a tokenizer, `ERR_UNSUPPORTED_MODEL` for modules that are not
   * supported, `ERR_FILE_FORMAT`, `ERR_OPTION`.
   */
  embed(texts: readonly string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    return embed(this, texts, options);
  }
}
