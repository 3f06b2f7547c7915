import type { ForwardOptions, ForwardOutput, PretrainedModel } from "../models/pretrained.js";
import type { Tensor } from "../tensor.js";

/** What fine-tuning asks of a model that reads text, whatever its family and task. */
export interface Trainable extends PretrainedModel {
  readonly config: {
    modelType: string;
    vocabSize: number;
    maxPositionEmbeddings: number;
    eosTokenIds?: readonly number[];
    padTokenId?: number | undefined;
  };
  forward(ids: Tensor, options?: ForwardOptions): ForwardOutput;
}
