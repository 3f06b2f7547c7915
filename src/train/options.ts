import type { OptimizerType } from "./optimizer-defaults.js";
import type { Priority } from "../device/cpu-use.js";
import type { DataFormat, TrainOn } from "../data/format.js";
import type { TrainingData } from "../data/given.js";
import type { InjectOptions } from "../lora/index.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { MatmulPrecision } from "../tensor/scope.js";
import type { LogFormat } from "../runs/metrics.js";
import type { Quantization } from "../models/quantization.js";
import type { FloatDType } from "../tensor/tensor.js";

/** The schedule of the learning rate after the warm-up: a linear or cosine decay to 0, or a constant rate. */
export type ScheduleName = "linear" | "cosine" | "constant";
/** The storage types of weights. */
export type StorageType = FloatDType;

/**
 * The options of `finetune`. Each description ends with the default or names it. A resumed run uses its recorded values
 * instead of the defaults.
 */
export interface FinetuneOptions {
  /**
   * A model's folder, its name at a hub (`owner/name` or `owner/name@revision`), or a loaded model. A loaded model is
   * adapted in place: only the run's adapter is active and trained, and it stays the active one afterwards. Required,
   * unless the run is resumed or starts from an adapter (`adapter`) that names its base model.
   */
  model?: string | PretrainedModel | undefined;
  /**
   * A branch, a tag or a commit of a hub's model, instead of `@revision`. A resumed run uses the commit that it was
   * started with.
   */
  revision?: string | undefined;
  /** Use only the cache for a hub's model, without network access; by default as `HF_HUB_OFFLINE` says. */
  offline?: boolean | undefined;
  /**
   * The rows to train on: a `.txt`, `.jsonl`, `.ndjson`, `.json`, `.csv` or `.parquet` file of any size, a named pipe, or
   * `-` for standard input; an array of such names; or rows in memory, as an array or as an iterable, which is read once.
   * Streams and iterables are written to a temporary file before training begins. They must therefore end, even if
   * `steps` needs few rows; they end with an error before the disk is full. Rows of speech in memory contain their
   * samples as a Float32Array at 16 kHz. Required, except when resuming a run over files.
   */
  data?: TrainingData | undefined;
  /** The held-out rows, in any form of `data`; none by default. An alternative is `evalSplit`. */
  evalData?: TrainingData | undefined;
  /**
   * The share of the data to hold out, above 0 and below 1. Rows are drawn by `seed`, in the same share from each class.
   * A class of two rows or more has at least one held-out row if the share has enough rows.
   */
  evalSplit?: number | undefined;
  /** The format of `data` and `evalData`, if their names do not show it. */
  dataFormat?: DataFormat | undefined;
  /** The spoken language, by its code or its English name; required for a speech model with several languages. */
  language?: string | undefined;
  /** A file with the chat template for rendering messages; by default the model's own. */
  chatTemplate?: string | undefined;
  /**
   * A folder with an adapter from PEFT or from a run, to start from instead of a new adapter. Its configuration sets the
   * rank, alpha, targets and the rest of `lora`; other values there throw `ERR_OPTION`. Without `model`, its base model
   * is loaded. The optimizer starts without state, and the folder is not changed.
   */
  adapter?: string | undefined;
  /** The folder of the adapter and its checkpoints; `./lowrank-out`. */
  output?: string | undefined;
  /**
   * Replace the adapter and the checkpoints of an earlier run in the output folder, when this run is done. The folder is
   * unchanged until this run saves something, and files that no run wrote are kept.
   */
  overwrite?: boolean | undefined;
  /**
   * The adapter's options. By default rank 16, alpha twice the rank, no dropout, and all linear layers except the head.
   * The initialisation `eva` uses the run's data by default; `evaData` replaces it.
   */
  lora?: InjectOptions | undefined;
  /** The optimizer's options; by default AdamW with a learning rate of 2e-4 and a weight decay of 0.01. */
  optimizer?:
    | {
        /** The type of optimizer; `adamw`. */
        type?: OptimizerType | undefined;
        /** The peak learning rate, at least 0; 2e-4, for Lion 2e-5, for SGD and Adafactor 1e-2. Adafactor's is relative to the weights. */
        lr?: number | undefined;
        /** Decay of the running means of the gradient and of its square, each at least 0 and below 1; 0.9 and 0.999, for Lion 0.9 and 0.99. Not for SGD and Adafactor. */
        betas?: readonly [number, number] | undefined;
        /** Added to the denominator of an update, at least 0; 1e-8. Only for Adam and AdamW. */
        eps?: number | undefined;
        /** Share of the last update that SGD keeps, at least 0 and below 1; 0.9. Only for SGD. */
        momentum?: number | undefined;
        /** Weight decay, at least 0; 0.01. Decoupled, except for Adam and SGD, which add it to the gradient. */
        weightDecay?: number | undefined;
        /** The ratio of the learning rates of B and A (LoRA+, Hayou et al. 2024); 1. */
        loraPlusRatio?: number | undefined;
      }
    | undefined;
  /** The schedule of the learning rate after the warm-up; `linear`. */
  schedule?: ScheduleName | undefined;
  /** The number of steps over which the learning rate rises from 0; 3% of all steps, rounded up, and 0 for a single step. */
  warmup?: number | undefined;
  /** The number of optimizer steps, over as many epochs as needed. An alternative is `epochs`. */
  steps?: number | undefined;
  /** The number of passes over the data, which may be a fraction; 1, unless `steps` is given. */
  epochs?: number | undefined;
  /** Rows per batch; 1. */
  batchSize?: number | undefined;
  /** Batches per optimizer step; 8. */
  gradientAccumulation?: number | undefined;
  /** The maximum number of tokens in a row, at least 2; 512, limited to the model's maximum. */
  maxLength?: number | undefined;
  /** Keep only the input of each block and recompute its activations in backward: less memory, more time. False. */
  gradientCheckpointing?: boolean | undefined;
  /**
   * Pack rows into sequences of `maxLength` tokens to reduce padding. Rows do not attend to each other, and the loss is
   * the same as without packing. `batchSize` then counts sequences. Not for rows with labels. False.
   */
  packing?: boolean | undefined;
  /**
   * The trained tokens of a row with a prompt or with messages; `completion`. For messages, `completion` is the
   * assistant's turns, the same as `assistant`.
   */
  trainOn?: TrainOn | undefined;
  /** The share of each label that is spread over all labels, at least 0 and below 1; 0. Held-out losses ignore it. */
  labelSmoothing?: number | undefined;
  /** Clip gradients to this norm; 1. 0 disables clipping. */
  clipNorm?: number | undefined;
  /** The seed of shuffling, dropout and the new adapter; 0. */
  seed?: number | undefined;
  /** Steps between evaluations. Further evaluations run at the start and at the end. Needs held-out rows. */
  evalEvery?: number | undefined;
  /**
   * The interval between checkpoints: a number of steps; a time such as `"10m"` (`s`, `m` or `h`), the training time that
   * a kill may lose at most; or `"never"`, the same as 0. `"10m"` by default. Unless it is `"never"`, the last step is
   * saved too, so that a finished run can be extended. A stopped run always saves, and so does an evaluation that
   * `patience` finds the best so far. The interval does not affect the results.
   */
  saveEvery?: number | "never" | (string & {}) | undefined;
  /**
   * The number of newest checkpoints to keep; 3. In addition the run keeps the one with the lowest held-out loss, and the
   * newest one whose loss was checked. Older checkpoints are removed once a newer one is safely on the disk.
   */
  keep?: number | undefined;
  /**
   * The number of evaluations without a lower held-out loss that ends the run. Each evaluation that is the best so far
   * saves a checkpoint. However the run ends, its result is the best checkpoint, unless it is stopped.
   */
  patience?: number | undefined;
  /**
   * Resumes from the run's newest checkpoint in the output folder, or from the given folder: an output folder or one of
   * its checkpoints. The run's options come from its `run.json`. Options that are given now and differ are reported by a
   * `warning` event. Options that cannot change (the adapter, the seed, the batch, the row length, packing, storage and
   * precision) throw `ERR_OPTION`, as do another model, tokenizer or data. Resuming from an older checkpoint starts a
   * branch: the later checkpoints of the original line are kept, but resumed from only by name.
   */
  resume?: boolean | string | undefined;
  /** The storage type of the frozen weights; by default the file's. */
  dtype?: StorageType | undefined;
  /** Quantise the linear layers of the blocks while loading the model (QLoRA), as `loadModel` does. */
  quantize?: Quantization | undefined;
  /**
   * The memory limit of the run on its device, in bytes, including memory-mapped weights: a number, a decimal size such
   * as `2GB`, or `auto`, which is seven eighths of the free memory at the start. A run above the limit is made to fit by
   * gradient checkpointing, smaller batches with more accumulation, smaller weight storage (bf16, q8_0, nf4) and shorter
   * rows, in this order and no further than needed. Given values of checkpointing, storage and length are kept, and so is
   * the number of rows per step. The start event reports the choices, and a resumed run keeps them. A run that cannot fit
   * throws `ERR_OUT_OF_MEMORY` before the model is loaded, with the options that prevent a fit. Without a limit nothing is
   * changed, and a run is refused if its tensors alone exceed the free memory.
   */
  memory?: "auto" | number | (string & {}) | undefined;
  /** The precision of products with weights: `exact`, `bf16` (on the cpu) or `f16` (on a GPU); by default as set by `setMatmulPrecision`. */
  matmulPrecision?: MatmulPrecision | undefined;
  /** The device: `auto`, `cpu`, `gpu`, `gpu:1`, …; `auto`, which is a hardware GPU if there is one, otherwise the cpu. */
  device?: string | undefined;
  /**
   * The maximum number of threads that compute on the cpu at once, including tokenisation: from 1 to the number of cores.
   * By default one for each core, or one less with `priority: "background"`. It does not affect the results, and a
   * resumed run may change it.
   */
  threads?: number | undefined;
  /**
   * `"background"` leaves one core free and gives the engine's threads a lower priority than other programs, which stay
   * responsive. It slows a run down only while they need the processor. `"normal"` by default, and `"background"` in a
   * run of `lowrank/electron`. A resumed run may change it.
   */
  priority?: Priority | undefined;
  /** A file for a trace of every operation, in a format that Perfetto opens. It slows the run down a little. */
  profile?: string | undefined;
  /**
   * Write the run's figures into the output folder in another format too: `csv`, one row per step, as `metrics.csv`, or
   * TensorBoard's, in `tensorboard/`. None by default.
   */
  log?: LogFormat | undefined;
  /**
   * Serve a page about the run on this machine, as `run.dashboard()` does: at the given port of 127.0.0.1, or with `true`
   * at a free one. A `dashboard` event reports its address. False.
   */
  dashboard?: boolean | number | undefined;
  /** Aborts the run within a step, with the signal's reason. To end it with a checkpoint, use `stop()`. */
  signal?: AbortSignal | undefined;
}
