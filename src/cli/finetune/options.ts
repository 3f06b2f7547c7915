/** The options of `finetune`, and what they mean to the library. */
import { type Command, Option } from "commander";
import { DATA_FORMATS, type DataFormat, TRAIN_ON, type TrainOn } from "../../data/format.js";
import type { BiasMode, InitLoraWeights } from "../../lora/index.js";
import { defaultData, defaultModel } from "../../models/default.js";
import { LOG_FORMATS, type LogFormat } from "../../runs/metrics.js";
import { optionName } from "../../option-name.js";
import type { MatmulPrecision } from "../../scope.js";
import { OPEN } from "../../train/memory/changeable.js";
import { OPTIMIZER_DEFAULTS, OPTIMIZER_TYPES, type OptimizerType } from "../../train/optimizer-defaults.js";
import type { FinetuneOptions, ScheduleName, StorageType } from "../../train/options.js";
import { chatTemplateOption } from "../chat-template.js";
import { type CpuFlags, cpuOptions } from "../cpu.js";
import { LANGUAGE } from "../language.js";
import { UsageError } from "../failure.js";
import { hubOptions, MODEL } from "../hub.js";
import type { Quantization } from "../../models/quantization.js";
import { quantizeOption, STORAGE_TYPES } from "../storage.js";
import * as value from "../values.js";
import { PLACES } from "./places.js";

/** Files that hold data, as help says it. */
export const DATA_FILES =
  "a .txt, .jsonl, .ndjson, .json, .csv or .parquet file, or - for standard input; repeat it for several files";

/** As commander hands them over. */
export interface Flags extends CpuFlags {
  model?: string | undefined;
  revision?: string | undefined;
  offline?: boolean | undefined;
  data?: string[] | undefined;
  evalData?: string[] | undefined;
  evalSplit?: number | undefined;
  dataFormat?: DataFormat | undefined;
  language?: string | undefined;
  chatTemplate?: string | undefined;
  adapter?: string | undefined;
  output: string;
  rank: number;
  alpha?: number | undefined;
  dropout: number;
  targets: string | string[];
  rslora?: boolean | undefined;
  dora?: boolean | undefined;
  init: InitLoraWeights;
  bias: BiasMode;
  modulesToSave?: string[] | undefined;
  optimizer?: OptimizerType | undefined;
  lr?: number | undefined;
  momentum?: number | undefined;
  loraplusRatio?: number | undefined;
  weightDecay: number;
  schedule: ScheduleName;
  warmup?: number | undefined;
  clipNorm: number;
  steps?: number | undefined;
  epochs?: number | undefined;
  batchSize: number;
  gradAccum: number;
  maxLength?: number | undefined;
  trainOn: TrainOn;
  labelSmoothing: number;
  gradCheckpointing?: boolean | undefined;
  packing?: boolean | undefined;
  evalEvery?: number | undefined;
  saveEvery?: number | string | undefined;
  keep: number;
  patience?: number | undefined;
  resume?: boolean | string | undefined;
  seed: number;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  memory?: number | "auto" | undefined;
  matmulPrecision?: MatmulPrecision | undefined;
  device: string;
  profile?: string | undefined;
  log?: LogFormat | undefined;
  dashboard?: boolean | number | undefined;
  config?: string | undefined;
  json?: boolean | undefined;
  yes?: boolean | undefined;
}

/** Declares the options of `finetune` on a command. */
export function declareFlags(command: Command): Command {
  return declareRun(declareTraining(declareAdapter(declareData(command))));
}

function choice(flags: string, text: string, choices: readonly string[]): Option {
  return new Option(flags, text).choices(choices);
}

function declareData(command: Command): Command {
  return hubOptions(command.option("--model <name>", `${MODEL}; the embedded one unless given`))
    .option("--data <file>", `training data: ${DATA_FILES}`, value.collect)
    .option(
      "--eval-data <file>",
      "held-out rows in a separate file; repeat it for several files",
      value.collect,
    )
    .option(
      "--eval-split <share>",
      "hold out a share of the rows, drawn by the seed, such as 0.05",
      value.share,
    )
    .addOption(choice("--data-format <format>", "of data whose name doesn't say it", DATA_FORMATS))
    .option("--language <name>", LANGUAGE)
    .addOption(chatTemplateOption());
}

function declareAdapter(command: Command): Command {
  return command
    .option(
      "--adapter <folder>",
      "start from this adapter: rank, alpha and targets, and unless given the model, are its own",
    )
    .option("--output <folder>", "where the adapter goes", "./lowrank-out")
    .option("--rank <n>", "rank of the adapter", value.count, 16)
    .option("--alpha <n>", "scale: alpha / rank; twice the rank unless given", value.positive)
    .option("--dropout <share>", "dropout in front of the adapter", value.dropout, 0)
    .option("--targets <names>", "layers to adapt: a,b or all-linear or peft", value.targets, "all-linear")
    .option("--rslora", "scale by alpha / √rank")
    .option("--dora", "train magnitude and direction apart")
    .option(
      "--init <how>",
      "true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora or eva",
      value.init,
      true,
    )
    .addOption(choice("--bias <which>", "biases to train", ["none", "all", "lora_only"]).default("none"))
    .option("--modules-to-save <names>", "modules to train whole: a,b", value.list);
}

function declareTraining(command: Command): Command {
  return command
    .addOption(choice("--optimizer <name>", "which optimizer trains; adamw by default", OPTIMIZER_TYPES))
    .option(
      "--lr <rate>",
      "learning rate; 2e-4 by default, 2e-5 with lion, 1e-2 with sgd and adafactor",
      value.positive,
    )
    .option("--momentum <share>", "share of the last update that sgd keeps; 0.9 by default", value.dropout)
    .option("--loraplus-ratio <n>", "how many times faster B learns than A", value.positive)
    .option("--weight-decay <rate>", "weight decay", value.notNegative, 0.01)
    .addOption(
      choice("--schedule <name>", "of the learning rate", ["linear", "cosine", "constant"]).default("linear"),
    )
    .option("--warmup <n>", "steps of warm-up; 3% of all unless given", value.countFromZero)
    .option("--clip-norm <norm>", "largest norm of the gradients; 0 for any", value.notNegative, 1)
    .option("--steps <n>", "optimizer steps", value.count)
    .option("--epochs <n>", "times through the data, instead of steps; 1 unless given", value.positive)
    .option("--batch-size <n>", "rows at a time", value.count, 1)
    .option("--grad-accum <n>", "batches to an optimizer step", value.count, 8)
    .option("--max-length <n>", "tokens of a row; 512 unless given, and never over the model's", value.length)
    .addOption(
      choice("--train-on <what>", "of rows of prompt and completion, or of messages", TRAIN_ON).default(
        "completion",
      ),
    )
    .option("--label-smoothing <share>", "how much of each label is spread over all", value.dropout, 0)
    .option("--grad-checkpointing", "less memory, a third more time")
    .option(
      "--packing",
      "rows share sequences of max-length, unseen by each other; batches are of sequences",
    );
}

function declareRun(command: Command): Command {
  const declared = command
    .option("--eval-every <n>", "steps between evaluations", value.count)
    .option(
      "--save-every <when>",
      "save a checkpoint every n steps, or every 90s, 10m or 1h of training; never; 10m unless given",
      value.saveEvery,
    )
    .option(
      "--keep <n>",
      "checkpoints that are kept: the newest, and besides them the best and the last good one",
      value.count,
      3,
    )
    .option(
      "--patience <n>",
      "end after n evaluations without a lower held-out loss, with the best adapter",
      value.count,
    )
    .option(
      "--resume [folder]",
      "go on with a run, by its own options: from the newest checkpoint of an output folder, or from a checkpoint",
    )
    .option("--seed <n>", "of the first values, the order of rows and dropout", value.countFromZero, 0)
    .addOption(choice("--dtype <type>", "storage of the model's weights", STORAGE_TYPES))
    .addOption(quantizeOption())
    .option(
      "--memory <size>",
      "what the run may hold, such as 2GB, or auto for what is free: chooses checkpointing, batches, storage and length so that it fits",
      value.memory,
    )
    .addOption(
      choice(
        "--matmul-precision <precision>",
        "of products by weights: bf16 on the cpu, by bf16 weights, and unasked with --dtype bf16; f16 on a gpu",
        ["exact", "bf16", "f16"],
      ),
    )
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.device, "auto");
  return cpuOptions(declared)
    .option("--profile <file>", "write a trace for Perfetto, and a table by operation at the end")
    .addOption(choice("--log <format>", "write the run's figures in another format besides", LOG_FORMATS))
    .option("--dashboard [port]", "serve a page about the run, on this machine alone", value.port)
    .option("--config <file>", "options from a YAML file; the command line goes before it")
    .option("--json", "one event a line, as JSON")
    .option("--yes", "replace what an earlier run left in the output folder, once this one is done");
}

/** Checks options against each other, whether they come from the command line or from a file. */
export function checkFlags(flags: Flags): void {
  const name = optionName;
  const both = (a: keyof Flags, b: keyof Flags): void => {
    if (flags[a] !== undefined && flags[b] !== undefined)
      throw new UsageError(`give one of ${name(a)} and ${name(b)}, not both`);
  };
  both("steps", "epochs");
  both("evalData", "evalSplit");
  if (flags.resume !== undefined && flags.yes)
    throw new UsageError(
      `${name("resume")} goes on with what ${name("overwrite")} would replace; give one of them`,
    );
  const [fromInput, heldFromInput] = [flags.data, flags.evalData].map(
    (files) => files?.includes("-") === true,
  );
  if (fromInput && heldFromInput) {
    const what = `${name("data")} and ${name("evalData")} cannot both be standard input`;
    throw new UsageError(`${what}; give ${name("evalSplit")}`);
  }
  // A run that goes on has options besides these.
  if (flags.resume !== undefined) return;
  if ((fromInput || heldFromInput) && flags.dataFormat === undefined) {
    const option = name(fromInput ? "data" : "evalData");
    const formats = DATA_FORMATS.join(", ");
    throw new UsageError(`${option} - has no name to go by: give ${name("dataFormat")}, one of ${formats}`);
  }
  for (const needy of ["model", "adapter"] as const)
    if (flags[needy] !== undefined && flags.data === undefined)
      throw new UsageError(`${name(needy)} needs ${name("data")} FILE to train on`);
  const held = flags.evalData ?? flags.evalSplit;
  if (flags.evalEvery !== undefined && held === undefined)
    throw new UsageError(`${name("evalEvery")} needs ${name("evalData")} or ${name("evalSplit")}`);
  if (flags.patience !== undefined && flags.evalEvery === undefined)
    throw new UsageError(`${name("patience")} counts evaluations: it needs ${name("evalEvery")}`);
}

/** A single file as its name alone, as run.json records it. */
function oneOrMany(value: unknown, name: string | undefined): unknown {
  const files = (name === "data" || name === "evalData") && Array.isArray(value);
  return files && value.length === 1 ? value[0] : value;
}

function placed(flags: Partial<Flags>): FinetuneOptions {
  const options: Record<string, unknown> = {};
  for (const [flag, [first, second]] of Object.entries(PLACES)) {
    const value = oneOrMany(flags[flag as keyof Flags], first);
    if (value === undefined || first === undefined) continue;
    if (second === undefined) options[first] = value;
    else options[first] = { ...(options[first] as object | undefined), [second]: value };
  }
  return options as FinetuneOptions;
}

/** The library's options; what is left out there is left out here. `open` are the names of those that nobody gave. */
export function libraryOptions(flags: Flags, open: readonly string[] = []): FinetuneOptions {
  const lr = flags.lr ?? OPTIMIZER_DEFAULTS[flags.optimizer ?? "adamw"].lr;
  const completed: Flags = { ...flags, lr, data: flags.data ?? [defaultData()] };
  // An adapter that a run starts from names its base model, and has a rank and an alpha.
  if (flags.adapter === undefined) {
    completed.model ??= defaultModel();
    completed.alpha ??= 2 * flags.rank;
  }
  return Object.assign(placed({ ...completed, ...precision(flags) }), { [OPEN]: open });
}

/** Names that the library has for flags which have their defaults. */
export function openOptions(command: Command): string[] {
  return Object.entries(PLACES).flatMap(([flag, [name = ""]]) => (isGiven(command, flag) ? [] : [name]));
}

function isGiven(command: Command, flag: string): boolean {
  return !["default", undefined].includes(command.getOptionValueSource(flag));
}

/** The flags without the defaults of those that describe an adapter. */
export function withoutAdapterDefaults(command: Command, flags: Flags): Flags {
  const kept = Object.entries(flags).filter(
    ([flag]) => PLACES[flag as keyof Flags]?.[0] !== "lora" || isGiven(command, flag),
  );
  return Object.fromEntries(kept) as unknown as Flags;
}

/** Those alone that were given, by the command line or a file: what a run that goes on takes. */
export function givenOptions(command: Command): FinetuneOptions {
  const flags = command.opts<Flags>();
  const given = Object.entries(flags).filter(([name]) => isGiven(command, name));
  return placed({ ...Object.fromEntries(given), ...precision(flags) });
}

/** Storage in bf16 has products in bf16, unless they are to be exact. */
function precision({ dtype, matmulPrecision }: Flags): Partial<Flags> {
  const asked = matmulPrecision ?? (dtype === "bf16" ? "bf16" : undefined);
  return asked === undefined ? {} : { matmulPrecision: asked };
}
