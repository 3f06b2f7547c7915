/** What every encoder of texts offers. */
import { LowrankError } from "../errors.js";
import { perRow } from "../lora/adapter/per-row.js";
import type { Tensor } from "../tensor.js";
import { embed, type EmbedOptions } from "./embed.js";
import { forwardOptions, type ForwardOptions, type ModelOutput, PretrainedModel } from "./pretrained.js";

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

  /** @internal ids i32 [B, T] → [B, T, C], after the last norm. */
  abstract hidden(ids: Tensor, options?: ForwardOptions): Tensor;

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
