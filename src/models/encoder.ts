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
import { joined } from "./stream.js";

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
  forward(x: Tensor, mask: Tensor | undefined, checkpointed: boolean): Tensor {
    return joined(chain(this.layer, x, checkpointed, (block, y) => ({ x: block.forward(y.x, mask) })));
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
    /** ids i32 [B, T] → [B, T, C]. */
    forward(ids: Tensor, options: ForwardOptions): Tensor;
  };
  /** @internal The blocks, whatever transformers calls them. */
  protected abstract get blocks(): EncoderBlocks<EncoderBlock>;

  /** Where its weights are: `cpu`, `gpu:0`. */
  get device() {
    return this.embeddings.word_embeddings.weight.device;
  }

  /** @internal ids i32 [B, T] → [B, T, C], after the last norm. */
  hidden(ids: Tensor, options: ForwardOptions = {}): Tensor {
    checkedLength(ids, 0, this.config.maxPositionEmbeddings);
    const x = this.embeddings.forward(ids, options);
    return this.blocks.forward(x, options.attentionMask, this.gradientCheckpointing && trains(this));
  }

  /**
   * ids i32 [B, T] → hidden [B, T, C]. Throws `ERR_SHAPE_MISMATCH`, `ERR_INDEX` for a text that is too long,
   * `ERR_OPTION`, among others for labels, which need a head, `ERR_UNKNOWN_ADAPTER`.
   */
  override forward(ids: Tensor, options: ForwardOptions = {}): ModelOutput {
    if (forwardOptions(ids, options).labels !== undefined)
      throw new LowrankError("ERR_OPTION", "forward: an encoder has no head, and takes no labels");
    const hidden = (): Tensor => this.hidden(ids, options);
    return { hidden: perRow(this, ids.shape[0] as number, options.adapterPerRow, hidden) };
  }

  /**
   * One vector [C] a text: the mean over its tokens, or the first token's; of length 1 unless told
   * otherwise. A text that is too long loses its end.
   *
   * Throws `ERR_FILE_NOT_FOUND` for a model without a tokenizer, `ERR_OPTION`.
   */
  embed(texts: readonly string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    return embed(this, texts, options);
  }
}
