/**
 * The table of `finetune`'s options. An entry's comment is its documentation in the library, and each description ends
 * with the default or names it. The type `FinetuneOptions`, the checks, the command line, the schema of config files, the
 * rules of resuming and the page of options are derived from the table.
 */
import type { Priority } from "../../device/cpu-use.js";
import { DATA_FORMATS, type DataFormat, TRAIN_ON, type TrainOn } from "../../data/format.js";
import type { BiasMode, InjectOptions } from "../../lora/index.js";
import type { Targets } from "../../lora/options/targets.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { QUANTIZATIONS, type Quantization } from "../../models/quantization.js";
import { LOG_FORMATS, type LogFormat } from "../../runs/metrics.js";
import type { MatmulPrecision } from "../../tensor/scope.js";
import type { FloatDType } from "../../tensor/tensor.js";
import { OPTIMIZER_TYPES, type OptimizerType } from "./optimizer-defaults.js";
import { DEFAULT_SAVE_EVERY } from "./save-interval.js";
import { group, groupOf, option } from "./entry.js";
import {
  anyNumber,
  belowOne,
  betas,
  choice,
  device,
  file,
  flag,
  folderOrFlag,
  initialisation,
  interval,
  memoryLimit,
  moduleNames,
  notNegative,
  port,
  positive,
  probability,
  share,
  signal,
  targets,
  text,
  trainingData,
  unchecked,
  whole,
} from "./kinds.js";

/** Help text about data files. */
export const DATA_FILES =
  "a .txt, .jsonl, .ndjson, .json, .csv or .parquet file, or - for standard input; repeat it for several files";

/** The storage types of weights. */
export const STORAGE_TYPES = ["f32", "f16", "bf16"] as const satisfies readonly FloatDType[];

/** The schedules of the learning rate. */
export const SCHEDULES = ["linear", "cosine", "constant"] as const;

export const OPTIONS = {
  /**
   * A model's folder, its name at a hub (`owner/name` or `owner/name@revision`), or a loaded model. A loaded model is
   * adapted in place: only the run's adapter is active and trained, and it stays the active one afterwards. Required,
   * unless the run is resumed or starts from an adapter (`adapter`) that names its base model.
   */
  model: option(unchecked<string | PretrainedModel, string>("a folder, a name or a model"), {
    flag: "--model <name>",
    help: "the model: a folder, a GGUF file, or owner/name[@revision] at the hub; default: the embedded one",
    whenResuming: "free",
    relocated: true,
    onCommandLine: text,
  }),
  /**
   * A branch, a tag or a commit of a hub's model, instead of `@revision`. A resumed run uses the commit that it was
   * started with.
   */
  revision: option(text, {
    flag: "--revision <name>",
    help: "branch, tag or commit of a hub model; same as owner/name@revision",
    whenResuming: "free",
  }),
  /** Use only the cache for a hub's model, without network access; by default as `HF_HUB_OFFLINE` says. */
  offline: option(flag, {
    flag: "--offline",
    help: "use hub models from the cache only, without network access",
    whenResuming: "free",
    recorded: false,
  }),
  /**
   * The rows to train on: a `.txt`, `.jsonl`, `.ndjson`, `.json`, `.csv` or `.parquet` file of any size, a named pipe, or
   * `-` for standard input; an array of such names; or rows in memory, as an array or as an iterable, which is read once.
   * Streams and iterables are written to a temporary file before training begins. They must therefore end, even if
   * `steps` needs few rows; they end with an error before the disk is full. Rows of speech in memory contain their
   * samples as a Float32Array at 16 kHz. Required, except when resuming a run over files.
   */
  data: option(trainingData, {
    flag: "--data <file>",
    help: `training data: ${DATA_FILES}`,
    whenResuming: "free",
    relocated: true,
  }),
  /** The held-out rows, in any form of `data`; none by default. An alternative is `evalSplit`. */
  evalData: option(trainingData, {
    flag: "--eval-data <file>",
    help: "held-out rows in a separate file; repeat it for several files",
    whenResuming: "free",
    excludes: "evalSplit",
    relocated: true,
  }),
  /**
   * The share of the data to hold out, above 0 and below 1. Rows are drawn by `seed`, in the same share from each class.
   * A class of two rows or more has at least one held-out row if the share has enough rows.
   */
  evalSplit: option(share, {
    flag: "--eval-split <share>",
    help: "hold out this fraction of the rows, such as 0.05, selected by the seed",
    whenResuming: "fixed",
    excludes: "evalData",
  }),
  /** The format of `data` and `evalData`, if their names do not show it. */
  dataFormat: option(choice<DataFormat>(DATA_FORMATS), {
    flag: "--data-format <format>",
    help: "the format of data without a known file extension",
    whenResuming: "fixed",
  }),
  /** The spoken language, by its code or its English name; required for a speech model with several languages. */
  language: option(text, {
    flag: "--language <name>",
    help: "the language spoken in audio, such as de or german, for multilingual models",
    whenResuming: "fixed",
  }),
  /** A file with the chat template for rendering messages; by default the model's own. */
  chatTemplate: option(file, {
    flag: "--chat-template <file>",
    help: "a file with the chat template for messages; default: the model's own",
    whenResuming: "reported",
    relocated: true,
  }),
  /**
   * A folder with an adapter from PEFT or from a run, to start from instead of a new adapter. Its configuration sets the
   * rank, alpha, targets and the rest of `lora`; other values there throw `ERR_OPTION`. Without `model`, its base model
   * is loaded. The optimizer starts without state, and the folder is not changed.
   */
  adapter: option(text, {
    flag: "--adapter <folder>",
    help: "start from this adapter, with its rank, alpha and targets; default for --model: its base model",
    whenResuming: "fixed",
  }),
  /** The folder of the adapter and its checkpoints; `./lowrank-out`. */
  output: option(text, {
    flag: "--output <folder>",
    help: "the output folder for the adapter",
    default: "./lowrank-out",
    whenResuming: "free",
    recorded: false,
  }),
  /**
   * The adapter's options. By default rank 16, alpha twice the rank, no dropout, and all linear layers except the head.
   * The initialisation `eva` uses the run's data by default; `evaData` replaces it.
   */
  lora: groupOf<InjectOptions>()("fixed", {
    r: option(whole(1), {
      flag: "--rank <n>",
      help: "rank of the adapter",
      default: 16,
      whenResuming: "fixed",
    }),
    loraAlpha: option(anyNumber, {
      flag: "--alpha <n>",
      help: "the scaling is alpha / rank; default: twice the rank",
      whenResuming: "fixed",
      onCommandLine: positive,
    }),
    loraDropout: option(probability, {
      flag: "--dropout <share>",
      help: "dropout of the adapter's input",
      default: 0,
      whenResuming: "fixed",
      onCommandLine: belowOne(),
    }),
    targetModules: option(targets<Targets>(), {
      flag: "--targets <names>",
      help: "layers to adapt: names a,b, all-linear or peft",
      default: "all-linear",
      whenResuming: "fixed",
    }),
    useRslora: option(flag, { flag: "--rslora", help: "scale by alpha / √rank", whenResuming: "fixed" }),
    useDora: option(flag, {
      flag: "--dora",
      help: "train magnitude and direction separately",
      whenResuming: "fixed",
    }),
    initLoraWeights: option(initialisation, {
      flag: "--init <how>",
      help: "initialisation: true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora or eva",
      default: true,
      whenResuming: "fixed",
    }),
    bias: option(choice<BiasMode>(["none", "all", "lora_only"]), {
      flag: "--bias <which>",
      help: "biases to train",
      default: "none",
      whenResuming: "fixed",
    }),
    modulesToSave: option(moduleNames<readonly string[]>(), {
      flag: "--modules-to-save <names>",
      help: "modules to train fully: a,b",
      whenResuming: "fixed",
    }),
  }),
  /** The optimizer's options; by default AdamW with a learning rate of 2e-4 and a weight decay of 0.01. */
  optimizer: group({
    /** The type of optimizer; `adamw`. */
    type: option(choice<OptimizerType>(OPTIMIZER_TYPES), {
      flag: "--optimizer <name>",
      help: "the optimizer; default: adamw",
      whenResuming: "fixed",
    }),
    /** The peak learning rate, at least 0; 2e-4, for Lion 2e-5, for SGD and Adafactor 1e-2. Adafactor's is relative to the weights. */
    lr: option(notNegative, {
      flag: "--lr <rate>",
      help: "learning rate; default: 2e-4, 2e-5 for lion, 1e-2 for sgd and adafactor",
      whenResuming: "reported",
      onCommandLine: positive,
    }),
    /** Share of the last update that SGD keeps, at least 0 and below 1; 0.9. Only for SGD. */
    momentum: option(belowOne("at least 0 and below 1"), {
      flag: "--momentum <share>",
      help: "momentum of sgd; default: 0.9",
      whenResuming: "reported",
    }),
    /** Decay of the running means of the gradient and of its square, each at least 0 and below 1; 0.9 and 0.999, for Lion 0.9 and 0.99. Not for SGD and Adafactor. */
    betas: option(betas, {
      help: "decay of the running means of the gradient and of its square; default: 0.9 and 0.999, for lion 0.9 and 0.99",
      whenResuming: "reported",
    }),
    /** Added to the denominator of an update, at least 0; 1e-8. Only for Adam and AdamW. */
    eps: option(notNegative, {
      help: "added to the denominator of an update of adam and adamw; default: 1e-8",
      whenResuming: "reported",
    }),
    /** The ratio of the learning rates of B and A (LoRA+, Hayou et al. 2024); 1. */
    loraPlusRatio: option(notNegative, {
      flag: "--loraplus-ratio <n>",
      help: "ratio of the learning rates of B and A",
      whenResuming: "fixed",
      onCommandLine: positive,
    }),
    /** Weight decay, at least 0; 0.01. Decoupled, except for Adam and SGD, which add it to the gradient. */
    weightDecay: option(notNegative, {
      flag: "--weight-decay <rate>",
      help: "weight decay",
      default: 0.01,
      whenResuming: "reported",
    }),
  }),
  /** The schedule of the learning rate after the warm-up; `linear`. */
  schedule: option(choice(SCHEDULES), {
    flag: "--schedule <name>",
    help: "schedule of the learning rate",
    default: "linear",
    whenResuming: "reported",
  }),
  /** The number of steps over which the learning rate rises from 0; 3% of all steps, rounded up, and 0 for a single step. */
  warmup: option(whole(0), {
    flag: "--warmup <n>",
    help: "warm-up steps; default: 3% of all steps",
    whenResuming: "reported",
  }),
  /** Clip gradients to this norm; 1. 0 disables clipping. */
  clipNorm: option(notNegative, {
    flag: "--clip-norm <norm>",
    help: "clip gradients to this norm; 0 disables",
    default: 1,
    whenResuming: "reported",
  }),
  /** The number of optimizer steps, over as many epochs as needed. An alternative is `epochs`. */
  steps: option(whole(1), {
    flag: "--steps <n>",
    help: "optimizer steps",
    whenResuming: "reported",
    excludes: "epochs",
  }),
  /** The number of passes over the data, which may be a fraction; 1, unless `steps` is given. */
  epochs: option(positive, {
    flag: "--epochs <n>",
    help: "passes over the data, instead of --steps; default: 1",
    whenResuming: "reported",
    excludes: "steps",
  }),
  /** Rows per batch; 1. */
  batchSize: option(whole(1), {
    flag: "--batch-size <n>",
    help: "rows per batch",
    default: 1,
    whenResuming: "fixed",
    byMemory: "same rows",
  }),
  /** Batches per optimizer step; 8. */
  gradientAccumulation: option(whole(1), {
    flag: "--grad-accum <n>",
    help: "batches per optimizer step",
    default: 8,
    whenResuming: "fixed",
    byMemory: "same rows",
  }),
  /** The maximum number of tokens in a row, at least 2; 512, limited to the model's maximum. */
  maxLength: option(whole(2), {
    flag: "--max-length <n>",
    help: "maximum tokens per row, limited by the model",
    default: 512,
    whenResuming: "fixed",
    byMemory: "unless given",
  }),
  /**
   * The trained tokens of a row with a prompt or with messages; `completion`. For messages, `completion` is the
   * assistant's turns, the same as `assistant`.
   */
  trainOn: option(choice<TrainOn>(TRAIN_ON), {
    flag: "--train-on <what>",
    help: "the trained part of prompt/completion rows and of messages",
    default: "completion",
    whenResuming: "fixed",
  }),
  /** The share of each label that is spread over all labels, at least 0 and below 1; 0. Held-out losses ignore it. */
  labelSmoothing: option(belowOne(), {
    flag: "--label-smoothing <share>",
    help: "fraction of each label spread over all classes",
    default: 0,
    whenResuming: "reported",
  }),
  /** Keep only the input of each block and recompute its activations in backward: less memory, more time. False. */
  gradientCheckpointing: option(flag, {
    flag: "--grad-checkpointing",
    help: "gradient checkpointing: less memory, a third more time",
    default: false,
    whenResuming: "reported",
    byMemory: "unless given",
  }),
  /**
   * Pack rows into sequences of `maxLength` tokens to reduce padding. Rows do not attend to each other, and the loss is
   * the same as without packing. `batchSize` then counts sequences. Not for rows with labels. False.
   */
  packing: option(flag, {
    flag: "--packing",
    help: "pack several rows into sequences of max-length without attention across rows; batches count sequences",
    default: false,
    whenResuming: "fixed",
  }),
  /** Steps between evaluations. Further evaluations run at the start and at the end. Needs held-out rows. */
  evalEvery: option(whole(1), {
    flag: "--eval-every <n>",
    help: "steps between evaluations",
    whenResuming: "reported",
  }),
  /**
   * The interval between checkpoints: a number of steps; a time such as `"10m"` (`s`, `m` or `h`), the training time that
   * a kill may lose at most; or `"never"`, the same as 0. `"10m"` by default. Unless it is `"never"`, the last step is
   * saved too, so that a finished run can be extended. A stopped run always saves, and so does an evaluation that
   * `patience` finds the best so far. The interval does not affect the results.
   */
  saveEvery: option(interval, {
    flag: "--save-every <when>",
    help: "save a checkpoint every n steps, or every 90s, 10m or 1h of training, or never",
    default: DEFAULT_SAVE_EVERY,
    whenResuming: "reported",
  }),
  /**
   * The number of newest checkpoints to keep; 3. In addition the run keeps the one with the lowest held-out loss, and the
   * newest one whose loss was checked. Older checkpoints are removed once a newer one is safely on the disk.
   */
  keep: option(whole(1), {
    flag: "--keep <n>",
    help: "number of newest checkpoints to keep, in addition to the best and the last good one",
    default: 3,
    whenResuming: "reported",
  }),
  /**
   * The number of evaluations without a lower held-out loss that ends the run. Each evaluation that is the best so far
   * saves a checkpoint. However the run ends, its result is the best checkpoint, unless it is stopped.
   */
  patience: option(whole(1), {
    flag: "--patience <n>",
    help: "early stopping: end after n evaluations without a lower held-out loss, and keep the best adapter",
    whenResuming: "reported",
  }),
  /**
   * Resumes from the run's newest checkpoint in the output folder, or from the given folder: an output folder or one of
   * its checkpoints. The run's options come from its `run.json`. Options that are given now and differ are reported by a
   * `warning` event. Options that cannot change (the adapter, the seed, the batch, the row length, packing, storage and
   * precision) throw `ERR_OPTION`, as do another model, tokenizer or data. Resuming from an older checkpoint starts a
   * branch: the later checkpoints of the original line are kept, but resumed from only by name.
   */
  resume: option(folderOrFlag, {
    flag: "--resume [folder]",
    help: "resume a run with its stored options, from the newest checkpoint in an output folder or from a checkpoint folder",
    default: false,
    whenResuming: "free",
    recorded: false,
  }),
  /** The seed of shuffling, dropout and the new adapter; 0. */
  seed: option(whole(0), {
    flag: "--seed <n>",
    help: "seed of initialisation, row order and dropout",
    default: 0,
    whenResuming: "fixed",
  }),
  /** The storage type of the frozen weights; by default the file's. */
  dtype: option(choice<FloatDType>(STORAGE_TYPES), {
    flag: "--dtype <type>",
    help: "storage of the model's weights",
    whenResuming: "fixed",
    byMemory: "unless given",
  }),
  /** Quantise the linear layers of the blocks while loading the model (QLoRA), as `loadModel` does. */
  quantize: option(choice<Quantization>(QUANTIZATIONS), {
    flag: "--quantize <type>",
    help: "quantise the linear layers of the model's blocks when loading; other weights keep --dtype",
    whenResuming: "fixed",
    byMemory: "unless given",
  }),
  /**
   * The memory limit of the run on its device, in bytes, including memory-mapped weights: a number, a decimal size such
   * as `2GB`, or `auto`, which is seven eighths of the free memory at the start. A run above the limit is made to fit by
   * gradient checkpointing, smaller batches with more accumulation, smaller weight storage (bf16, q8_0, nf4) and shorter
   * rows, in this order and no further than needed. Given values of checkpointing, storage and length are kept, and so is
   * the number of rows per step. The start event reports the choices, and a resumed run keeps them. A run that cannot fit
   * throws `ERR_OUT_OF_MEMORY` before the model is loaded, with the options that prevent a fit. Without a limit nothing is
   * changed, and a run is refused if its tensors alone exceed the free memory.
   */
  memory: option(memoryLimit, {
    flag: "--memory <size>",
    help: "memory limit of the run, such as 2GB, or auto for the free memory; selects checkpointing, batch size, storage and length to fit",
    whenResuming: "reported",
  }),
  /** The precision of products with weights: `exact`, `bf16` (on the cpu) or `f16` (on a GPU); by default as set by `setMatmulPrecision`. */
  matmulPrecision: option(choice<MatmulPrecision>(["exact", "bf16", "f16"]), {
    flag: "--matmul-precision <precision>",
    help: "precision of products with weights: bf16 on the CPU with bf16 weights (the default with --dtype bf16), f16 on a GPU",
    whenResuming: "fixed",
  }),
  /** The device: `auto`, `cpu`, `gpu`, `gpu:1`, …; `auto`, which is a hardware GPU if there is one, otherwise the cpu. */
  device: option(device, {
    flag: "--device <name>",
    help: "auto, cpu, gpu or gpu:N",
    default: "auto",
    whenResuming: "reported",
  }),
  /**
   * The maximum number of threads that compute on the cpu at once, including tokenisation: from 1 to the number of cores.
   * By default one for each core, or one less with `priority: "background"`. It does not affect the results, and a
   * resumed run may change it.
   */
  threads: option(unchecked<number>("number"), {
    flag: "--threads <n>",
    help: "the maximum number of computing threads on the CPU; default: one per core",
    whenResuming: "reported",
    onCommandLine: whole(1),
  }),
  /**
   * `"background"` leaves one core free and gives the engine's threads a lower priority than other programs, which stay
   * responsive. It slows a run down only while they need the processor. `"normal"` by default, and `"background"` in a
   * run of `lowrank/electron`. A resumed run may change it.
   */
  priority: option(choice<Priority>(["normal", "background"]), {
    flag: "--priority <priority>",
    help: "background leaves one core free and lets other programs run first; default: normal",
    whenResuming: "reported",
  }),
  /** A file for a trace of every operation, in a format that Perfetto opens. It slows the run down a little. */
  profile: option(file, {
    flag: "--profile <file>",
    help: "write a trace for Perfetto, and print a table by operation at the end",
    whenResuming: "free",
    recorded: false,
  }),
  /**
   * Write the run's figures into the output folder in another format too: `csv`, one row per step, as `metrics.csv`, or
   * TensorBoard's, in `tensorboard/`. None by default.
   */
  log: option(choice<LogFormat>(LOG_FORMATS), {
    flag: "--log <format>",
    help: "also log the run's metrics in this format",
    whenResuming: "free",
  }),
  /**
   * Serve a page about the run on this machine, as `run.dashboard()` does: at the given port of 127.0.0.1, or with `true`
   * at a free one. A `dashboard` event reports its address. False.
   */
  dashboard: option(port, {
    flag: "--dashboard [port]",
    help: "serve a page about the run, only on this machine",
    default: false,
    whenResuming: "free",
    recorded: false,
  }),
  /**
   * Replace the adapter and the checkpoints of an earlier run in the output folder, when this run is done. The folder is
   * unchanged until this run saves something, and files that no run wrote are kept.
   */
  overwrite: option(flag, {
    flag: "--yes",
    help: "replace an earlier run in the output folder once this one has finished",
    default: false,
    whenResuming: "free",
    recorded: false,
  }),
  /** Aborts the run within a step, with the signal's reason. To end it with a checkpoint, use `stop()`. */
  signal: option(signal, { help: "aborts the run", whenResuming: "free", recorded: false }),
};
