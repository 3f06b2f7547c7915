import type { InjectOptions } from "../lora/index.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { MatmulPrecision } from "../scope.js";
import type { DType } from "../tensor.js";

export type ScheduleName = "linear" | "cosine" | "constant";
export type StorageType = Exclude<DType, "i32">;

/** What `finetune` takes. Left out, an option has the default that is given here. */
export interface FinetuneOptions {
  /** A model's folder, or a model that is loaded, which is then adapted in place. */
  model: string | PretrainedModel;
  /** A `.txt` or `.jsonl` file. */
  data: string;
  /** Held-out rows: a file, or the last part of the data. None unless given. */
  evalData?: string;
  evalSplit?: number;
  /** `./lowrank-out`. */
  output?: string;
  /** Replace what an earlier run left in the output folder. */
  overwrite?: boolean;
  /**
   * Rank 16, alpha twice the rank, no dropout, all linear layers but the head. A start from data
   * (`eva`) takes the run's own unless `evaData` is given.
   */
  lora?: InjectOptions;
  /** AdamW: 2e-4, weight decay 0.01; by LoRA+ where a ratio is given. */
  optimizer?: {
    lr?: number;
    betas?: readonly [number, number];
    eps?: number;
    weightDecay?: number;
    /** How many times faster B learns than A. */
    loraPlusRatio?: number;
  };
  /** `linear`. */
  schedule?: ScheduleName;
  /** Steps; 3% of all unless given. */
  warmup?: number;
  /** One or the other; one epoch unless given. */
  steps?: number;
  epochs?: number;
  /** 1 row, and 8 of them to an optimizer step. */
  batchSize?: number;
  gradientAccumulation?: number;
  /** 512 tokens, and never over the model's longest text. */
  maxLength?: number;
  gradientCheckpointing?: boolean;
  /** `completion`. */
  trainOn?: "completion" | "all";
  /** 0: how much of each label is spread over all; held-out losses leave it out. */
  labelSmoothing?: number;
  /** 1; 0 doesn't clip. */
  clipNorm?: number;
  /** 0. */
  seed?: number;
  /** Steps between evaluations and checkpoints; evaluations come at the start and the end too. */
  evalEvery?: number;
  saveEvery?: number;
  /** Goes on from the newest checkpoint in the output folder, or from the folder given. */
  resume?: boolean | string;
  /** Storage of the frozen weights; as in the file unless given. */
  dtype?: StorageType;
  /** Precision of products by bf16 weights on the cpu; what `setMatmulPrecision` says unless given. */
  matmulPrecision?: MatmulPrecision;
  device?: string;
  /** A file for a trace of every operation, as Perfetto opens it; it costs a little time. */
  profile?: string;
  signal?: AbortSignal;
}
