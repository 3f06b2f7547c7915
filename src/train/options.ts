import type { OptimizerType } from "./optimizer-defaults.js";
import type { Priority } from "../cpu-use.js";
import type { DataFormat, TrainOn } from "../data/format.js";
import type { TrainingData } from "../data/given.js";
import type { InjectOptions } from "../lora/index.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { MatmulPrecision } from "../scope.js";
import type { LogFormat } from "../runs/metrics.js";
import type { Quantization } from "../models/quantization.js";
import type { FloatDType } from "../tensor.js";

/** How the learning rate goes on after the warm-up: falling to 0 in a line or as half a cosine, or staying. */
export type ScheduleName = "linear" | "cosine" | "constant";
/** How weights may be stored. */
export type StorageType = FloatDType;

/**
 * What `finetune` takes. Left out, an option has the default that is given here, and in a run that goes on the value
 * that the run was started with.
 */
export interface FinetuneOptions {
  /**
   * A model's folder, its name at a hub (`owner/name`, or `owner/name@revision`), or a model that is loaded, which is
   * then adapted in place: of its adapters the run's own alone counts and is trained, and is the one that counts
   * afterwards. Required, unless a run is resumed or starts from an adapter (`adapter`) that names its base model.
   */
  model?: string | PretrainedModel | undefined;
  /**
   * A branch, a tag or a commit of a hub's model, in place of `@revision`. A run that goes on takes the commit that it was
   * started with.
   */
  revision?: string | undefined;
  /** Take a hub's model out of the cache and ask no server; as `HF_HUB_OFFLINE` says unless given. */
  offline?: boolean | undefined;
  /**
   * The rows to train on. A `.txt`, `.jsonl`, `.ndjson`, `.json`, `.csv` or `.parquet` file of any size, a named pipe, or
   * `-` for standard input; several files as an array of names; or rows in memory, as an array or as an iterable that is
   * read once. Streams and iterables are written to a temporary file up to their end before training begins, so they must
   * end, however few rows `steps` need; an error ends them before the disk is full. Rows of speech in memory hold their
   * samples as a Float32Array at 16 kHz. Required, except when a run over files is resumed.
   */
  data?: TrainingData | undefined;
  /** Held-out rows, in any form that `data` may have. None unless given; or `evalSplit`. */
  evalData?: TrainingData | undefined;
  /**
   * Held-out rows as a share of the data, above 0 and below 1, which `seed` draws, of each class alike. Each class of two
   * rows or more has at least one held out if the share has as many rows.
   */
  evalSplit?: number | undefined;
  /** What `data` and `evalData` hold, where their names don't say it. */
  dataFormat?: DataFormat | undefined;
  /** What is spoken, by its code or its English name: needed for a model of speech that knows several languages. */
  language?: string | undefined;
  /** A file with the chat template that messages are rendered by; the model's own unless given. */
  chatTemplate?: string | undefined;
  /**
   * A folder with an adapter, as PEFT or a run writes it, to start from instead of a fresh one. Its rank, alpha,
   * targets and the rest of `lora` come from its configuration; giving other values is `ERR_OPTION`. Without `model` its base
   * model is loaded. The optimizer starts without state, and the folder is not changed.
   */
  adapter?: string | undefined;
  /** The folder that the adapter and its checkpoints are written into; `./lowrank-out`. */
  output?: string | undefined;
  /**
   * Replace what an earlier run left in the output folder: its adapter when this one is done, and its checkpoints then.
   * Until this run has saved something the folder is as it was, and what no run wrote stays.
   */
  overwrite?: boolean | undefined;
  /**
   * Rank 16, alpha twice the rank, no dropout, all linear layers but the head. A start from data
   * (`eva`) takes the run's own unless `evaData` is given.
   */
  lora?: InjectOptions | undefined;
  /** AdamW with a learning rate of 2e-4 and weight decay of 0.01 by default. */
  optimizer?:
    | {
        /** Which optimizer; `adamw`. */
        type?: OptimizerType | undefined;
        /** The highest learning rate, from 0 on; 2e-4, 2e-5 of Lion, 1e-2 of SGD and of Adafactor, where it is relative to the weights. */
        lr?: number | undefined;
        /** Decay of the running means of the gradient and of its square, each at least 0 and below 1; 0.9 and 0.999, of Lion 0.9 and 0.99. SGD and Adafactor take none. */
        betas?: readonly [number, number] | undefined;
        /** Added to the denominator of an update, from 0 on; 1e-8. Adam and AdamW alone take it. */
        eps?: number | undefined;
        /** Share of the last update that SGD keeps, at least 0 and below 1; 0.9. The others take none. */
        momentum?: number | undefined;
        /** Weight decay, from 0 on; 0.01. It is decoupled, except with Adam and SGD, which add it to the gradient. */
        weightDecay?: number | undefined;
        /** How many times faster B learns than A (LoRA+, Hayou et al. 2024); the same unless given. */
        loraPlusRatio?: number | undefined;
      }
    | undefined;
  /** What multiplies the learning rate after the warm-up; `linear`. */
  schedule?: ScheduleName | undefined;
  /** Steps in which the learning rate rises from 0; 3% of all, rounded up, unless given, and none of a single step. */
  warmup?: number | undefined;
  /** Optimizer steps, over as many epochs as they take; or `epochs`. */
  steps?: number | undefined;
  /** How often the data is gone through, which may be a fraction above 0; 1 unless `steps` is given. */
  epochs?: number | undefined;
  /** Rows of a batch; 1. */
  batchSize?: number | undefined;
  /** Batches to an optimizer step; 8. */
  gradientAccumulation?: number | undefined;
  /** Tokens that a row may have, at least 2; 512, and never over the model's longest text. */
  maxLength?: number | undefined;
  /** Keep only what enters each block and compute the rest again in backward: less memory, more time. False. */
  gradientCheckpointing?: boolean | undefined;
  /**
   * Whether rows share sequences of `maxLength` tokens, so that little is padding: none sees another, and the loss is that
   * of the rows. `batchSize` then counts sequences. Not for rows with labels. False.
   */
  packing?: boolean | undefined;
  /**
   * Which tokens are trained on of a row with a prompt or with messages; `completion`, which is the assistant's turns of
   * messages, and the same as `assistant`.
   */
  trainOn?: TrainOn | undefined;
  /** How much of each label is spread over all, at least 0 and below 1; 0. Held-out losses leave it out. */
  labelSmoothing?: number | undefined;
  /** The norm that gradients are cut to; 1. 0 doesn't clip. */
  clipNorm?: number | undefined;
  /** What shuffling, dropout and the fresh adapter are drawn from; 0. */
  seed?: number | undefined;
  /** Steps between evaluations, which come at the start and the end too. It needs held-out rows. */
  evalEvery?: number | undefined;
  /**
   * When checkpoints are saved: every n steps, or so often that a kill at any moment loses less than a time such
   * as `"10m"` (`s`, `m` or `h`), or `"never"` (the same as 0). `"10m"` by default. Unless it is `"never"`, the last step is saved
   * too, so that a finished run can be extended. A run that is stopped always saves, and so does each evaluation that
   * `patience` finds the best. No bit of the run depends on it.
   */
  saveEvery?: number | "never" | (string & {}) | undefined;
  /**
   * How many checkpoints are kept, 3 unless given: the newest, and besides them the best by held-out loss among those
   * that were evaluated, and the newest whose loss was checked. Older ones go once a newer is safely on the disk.
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
   * `warning` event; what cannot change (the adapter's options, the seed, the batch, the rows' length, packing, storage
   * and precision) is `ERR_OPTION`, as are another model, tokenizer or data. From a checkpoint that is not the newest the
   * run is a branch, and the later ones of the other are kept, but gone on from only when named.
   */
  resume?: boolean | string | undefined;
  /** Storage of the frozen weights; as in the file unless given. */
  dtype?: StorageType | undefined;
  /** Quantise the blocks' linear layers as the model is loaded (QLoRA), as `loadModel` does. */
  quantize?: Quantization | undefined;
  /**
   * How many bytes the run may hold on its device, weights in mapped files among them: a number, a size by thousands such
   * as `2GB`, or `auto`, which is seven eighths of what is free when it begins. What does not fit is made to, by gradient
   * checkpointing, smaller batches with as much more accumulation, storage of the weights (bf16, q8_0, nf4) and shorter
   * rows, in that order and no further than needed. Checkpointing, storage and length that were given are kept, and so are
   * the rows of a step. The start event tells what was chosen, and a run that goes on keeps it. A run that cannot fit is
   * `ERR_OUT_OF_MEMORY` before anything is loaded, and the message says which options stand in the way. Left out, nothing
   * is changed, and a run is refused whose tensors alone are more than is free.
   */
  memory?: "auto" | number | (string & {}) | undefined;
  /** Precision of products by weights, `exact`, `bf16` (on the cpu) or `f16` (on a gpu); what `setMatmulPrecision` says unless given. */
  matmulPrecision?: MatmulPrecision | undefined;
  /** Where it trains: `auto`, `cpu`, `gpu`, `gpu:1`, …; `auto`, unless given, is a GPU in hardware or else the cpu. */
  device?: string | undefined;
  /**
   * The most threads that compute on the cpu at a time, tokenisation among it: from 1 to the number of cores. Unless given,
   * one for each core, and with `priority: "background"` one less. No bit of the result depends on it, and a resumed
   * run may change it.
   */
  threads?: number | undefined;
  /**
   * `"background"` leaves one core free and gives the engine's threads a lower priority than other programs, so that these
   * stay responsive. It slows a run down only where they need the processor. `"normal"`, and `"background"` in a run of
   * `lowrank/electron`. A resumed run may change it.
   */
  priority?: Priority | undefined;
  /** A file for a trace of every operation, as Perfetto opens it; it costs a little time. */
  profile?: string | undefined;
  /**
   * Write the run's figures in another format besides, into the output folder: `csv`, a row a step, as `metrics.csv`, or
   * TensorBoard's, below `tensorboard/`. None unless given.
   */
  log?: LogFormat | undefined;
  /**
   * Serve a page about the run on this machine, as `run.dashboard()` does: at this port of 127.0.0.1, or with `true` at one
   * that is free. A `dashboard` event says where. False.
   */
  dashboard?: boolean | number | undefined;
  /** Ends the run within a step, with its reason; `stop()` ends it with a checkpoint. */
  signal?: AbortSignal | undefined;
}
