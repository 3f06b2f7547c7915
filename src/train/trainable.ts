import type { Device } from "../device.js";
import type { Module } from "../nn/module.js";
import type { Tokenizer } from "../models/tokenizer.js";
import type { Tensor } from "../tensor.js";

/** What fine-tuning asks of a model, whatever its family and task. */
export interface Trainable extends Module {
  readonly config: {
    modelType: string;
    vocabSize: number;
    maxPositionEmbeddings: number;
    eosTokenIds?: readonly number[];
    padTokenId?: number | undefined;
  };
  readonly tokenizer?: Tokenizer | undefined;
  readonly source: string | undefined;
  readonly folder: string | undefined;
  readonly device: Exclude<Device, "auto">;
  /** As PEFT names it. */
  readonly taskType: string;
  gradientCheckpointing: boolean;
  forward(ids: Tensor, options?: { attentionMask?: Tensor }): { logits: Tensor };
}
