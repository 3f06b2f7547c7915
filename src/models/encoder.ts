/** The base classes of text encoders. */
import { LowrankError } from "../errors.js";
import { runPerRow } from "../lora/adapter/per-row.js";
import type { Embedding } from "../nn/embedding.js";
import { Module } from "../nn/module.js";
import { isTraining } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { BlocksConfig } from "./config-parts.js";
import { embed, type EmbedOptions } from "./embed.js";
import {
  runBlocks,
  checkLength,
  checkForwardOptions,
  type ForwardOptions,
  type ModelOutput,
  PretrainedModel,
} from "./pretrained.js";
import { sumStream, type Stream } from "./stream.js";
import { readTokenShape } from "./text-input.js";

/** A block with bidirectional attention. */
type EncoderBlock = Module & { forward(x: Tensor, mask: Tensor | undefined): Tensor };

/** The blocks of an encoder. */
export abstract class EncoderBlocks<Block extends EncoderBlock> extends Module {
  /** The blocks, from first to last. */
  layer: Block[];

  /** @internal */
  constructor({ numHiddenLayers: length }: BlocksConfig, block: (index: number) => Block) {
    super();
    this.layer = Array.from({ length }, (_, i) => block(i));
  }

  /** Maps x [B, T, C] to [B, T, C]; `mask` i32 [B, T] is 0 for hidden keys. */
  forward(x: Tensor, mask: Tensor | undefined, checkpointed: boolean, states?: Tensor[]): Tensor {
    const run = (block: Block, y: Stream): Stream => ({ x: block.forward(y.x, mask) });
    return sumStream(runBlocks(this.layer, x, checkpointed, run, states));
  }
}

/** The base class of text encoders. */
export abstract class TextEncoder extends PretrainedModel {
  /** The fields of `config.json`, in camel case. */
  abstract override readonly config: {
    /** The longest text, in tokens. */
    maxPositionEmbeddings: number;
    /** The padding id; undefined for none. */
    padTokenId: number | undefined;
  } & Record<string, unknown>;
  /** The task in PEFT's terms. */
  readonly taskType = "FEATURE_EXTRACTION";

  /** The token embedding with its additions, such as positions. */
  abstract readonly embeddings: Module & {
    /** The token embedding. */
    word_embeddings: Embedding;
    /** Maps ids i32 [B, T], or null with `inputsEmbeds`, to [B, T, C]. */
    forward(ids: Tensor | null, options: ForwardOptions): Tensor;
  };
  /** @internal The blocks; their property name differs by family. */
  protected abstract get blocks(): EncoderBlocks<EncoderBlock>;

  /** The device of the weights: `cpu`, `gpu:0`. */
  get device() {
    return this.embeddings.word_embeddings.weight.device;
  }

  /** Returns the token embeddings [B, T, C] of ids i32 [B, T], as `inputsEmbeds` of `forward` expects them. */
  embedTokens(ids: Tensor): Tensor {
    return this.embeddings.word_embeddings.forward(ids);
  }

  /**
   * @internal Maps ids i32 [B, T], or null with `inputsEmbeds`, to hidden states [B, T, C] after the last norm. Hidden
   * states of the blocks are pushed to `states`.
   */
  computeHidden(ids: Tensor | null, options: ForwardOptions = {}, states?: Tensor[]): Tensor {
    checkLength(readTokenShape(ids, options), 0, this.config.maxPositionEmbeddings);
    const x = this.embeddings.forward(ids, options);
    const checkpointed = this.gradientCheckpointing && isTraining(this);
    return this.blocks.forward(x, options.attentionMask, checkpointed, states);
  }

  /**
   * Maps ids i32 [B, T], or null with `inputsEmbeds`, to hidden [B, T, C]. Throws `ERR_SHAPE_MISMATCH`, `ERR_INDEX` for
   * a text that is too long, `ERR_OPTION`, for example for labels, which need a head, `ERR_UNKNOWN_ADAPTER`.
   */
  override forward(ids: Tensor | null, options: ForwardOptions = {}): ModelOutput {
    const { labels, outputHiddenStates } = checkForwardOptions(
      ids,
      options,
      this.embeddings.word_embeddings.embeddingDim,
    );
    if (labels !== undefined)
      throw new LowrankError("ERR_OPTION", "forward: an encoder has no head, and takes no labels");
    const batch = readTokenShape(ids, options).shape[0] as number;
    const states: Tensor[] | undefined = outputHiddenStates === true ? [] : undefined;
    const hidden = runPerRow(this, batch, options.adapterPerRow, () =>
      this.computeHidden(ids, options, states),
    );
    return states === undefined ? { hidden } : { hidden, hiddenStates: states };
  }

  /**
   * Returns one vector [C] per text. Pooling, normalisation, maximum length and prompt come from the folder's
   * sentence-transformers modules; without them, vectors are the normalised mean over the tokens. Options take
   * precedence. Longer texts are truncated.
   *
   * Throws `ERR_FILE_NOT_FOUND` for a model without a tokenizer, `ERR_UNSUPPORTED_MODEL` for unsupported modules,
   * `ERR_FILE_FORMAT`, `ERR_OPTION`.
   */
  embed(texts: readonly string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    return embed(this, texts, options);
  }
}
