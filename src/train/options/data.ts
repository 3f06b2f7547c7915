/** The options that name the model, the data, and the folders of adapters. */
import { DATA_FORMATS, type DataFormat } from "../../data/format.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { option } from "./entry.js";
import { choice, file, flag, share, text, trainingData, unchecked } from "./kinds.js";

/** Help text about data files. */
export const DATA_FILES =
  "a .txt, .jsonl, .ndjson, .json, .csv or .parquet file, or - for standard input; repeat it for several files";

export const DATA_OPTIONS = {
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
};
