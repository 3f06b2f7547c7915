import type { DataFormat } from "../data/read.js";
import type { InjectOptions } from "../lora/index.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { MatmulPrecision } from "../scope.js";
import type { DType } from "../tensor.js";

export type ScheduleName = "linear" | "cosine" | "constant";
export type StorageType = Exclude<DType, "i32">;

/**
 * What `finetune` takes. Left out, an option has the default that is given here, and in a run that goes on the value
 * that the run was started with.
 */
export interface FinetuneOptions {
  /** A model's folder, or a model that is loaded, which is then adapted in place. Needed, unless a run goes on. */
  model?: string | PretrainedModel | undefined;
  /**
   * A `.txt` or `.jsonl` file of any size, a named pipe, or `-` for standard input, which is written into a file beside
   * as it comes. Needed, unless a run goes on.
   */
  data?: string | undefined;
  /** Held-out rows: a file, or a share of the data that `seed` draws, of each class alike. None unless given. */
  evalData?: string | undefined;
  evalSplit?: number | undefined;
  /** What `data` and `evalData` hold, where their names don't say it. */
  dataFormat?: DataFormat | undefined;
  /** `./lowrank-out`. */
  output?: string;
  /**
   * Replace what an earlier run left in the output folder: its adapter when this one is done, and its checkpoints then.
   * Until this run has saved something the folder is as it was, and what no run wrote stays.
   */
  overwrite?: boolean | undefined;
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
  /**
   * How many checkpoints are kept, 3 unless given: the newest, and besides them the best by held-out loss among those
   * that were evaluated. Older ones go once a newer is safely on the disk.
   */
  keep?: number | undefined;
  /**
   * Evaluations without a lower held-out loss after which the run ends. A checkpoint is saved at each that is the best so
   * far, and the best is what the run gives, however it ends, unless it is stopped.
   */
  patience?: number | undefined;
  /**
   * Goes on from the newest checkpoint of the run in the output folder, or from a folder: an output folder, or one of its
   * checkpoints. The run's own options are taken from its `run.json`. What is given besides and differs is told in a
   * `warning` event; what cannot change (the adapter's options, the seed, the batch, the rows' length, storage and
   * precision) is `ERR_OPTION`, as are another model, tokenizer or data. From a checkpoint that is not the newest the
   * run is a branch, and the later ones of the other are kept, but gone on from only when named.
   */
  resume?: boolean | string | undefined;
  /** Storage of the frozen weights; as in the file unless given. */
  dtype?: StorageType;
  /** Precision of products by bf16 weights on the cpu; what `setMatmulPrecision` says unless given. */
  matmulPrecision?: MatmulPrecision;
  device?: string;
  /** A file for a trace of every operation, as Perfetto opens it; it costs a little time. */
  profile?: string;
  signal?: AbortSignal;
}
