/** The options that set the steps, the rows of each, evaluations and checkpoints. */
import { PROMPT_FORMATS, type PromptFormat, TRAIN_ON, type TrainOn } from "../../data/format.js";
import { DEFAULT_SAVE_EVERY } from "./save-interval.js";
import { option } from "./entry.js";
import { belowOne, choice, flag, folderOrFlag, interval, positive, whole } from "./kinds.js";

export const STEP_OPTIONS = {
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
    byMemory: "if absent",
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
  /**
   * How rows of prompt and completion become text: `chat` writes them by the model's chat template, as the messages of a
   * user and an assistant; `raw` joins the two texts; `auto` is `chat` if the model has a template, else `raw`.
   */
  promptFormat: option(choice<PromptFormat>(PROMPT_FORMATS), {
    flag: "--prompt-format <format>",
    help: "prompt/completion rows by the chat template (chat) or as plain text (raw); auto: chat if there is a template",
    default: "auto",
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
    byMemory: "if absent",
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
};
