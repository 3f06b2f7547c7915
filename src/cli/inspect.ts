import { Command, Option } from "commander";
import { DATA_FORMATS, type DataFormat, type PromptFormat, TRAIN_ON, type TrainOn } from "../data/format.js";
import { optionName } from "../arguments/option-name.js";
import { makeFlagByName } from "./options/flags.js";
import { formatJsonLine } from "./terminal/escaped.js";
import { AnsweredNo, warn } from "./terminal/failure.js";
import { DownloadLine, type HubFlags, declareHubOptions, MODEL } from "./options/hub.js";
import { formatInspected, isUsable } from "./inspected.js";
import { runInterruptible } from "./terminal/interrupt.js";
import * as value from "./options/values.js";

interface Flags extends HubFlags {
  model?: string | undefined;
  dataFormat?: DataFormat | undefined;
  language?: string | undefined;
  chatTemplate?: string | undefined;
  trainOn: TrainOn;
  promptFormat: PromptFormat;
  maxLength: number;
  rows: number;
  json?: boolean | undefined;
}

export function createInspectCommand(): Command {
  const command = new Command("inspect").description(
    "describe a path: a model, by its headers; an adapter, and whether it fits a model; or a data file, with the rows and tokens to train on",
  );
  return declareHubOptions(command)
    .argument(
      "<path...>",
      "a model's folder, file or hub name; an adapter's folder or file; or one or more .txt, .jsonl, .ndjson, .json, .csv or .parquet files, or - for standard input",
    )
    .option(
      "--model <name>",
      `${MODEL}, against which an adapter is checked or with which data is tokenised; default for data: the embedded one`,
    )
    .addOption(
      new Option("--data-format <format>", "the format of data without a known file extension").choices(
        DATA_FORMATS,
      ),
    )
    .addOption(makeFlagByName("language"))
    .addOption(makeFlagByName("chatTemplate"))
    .addOption(
      new Option("--train-on <what>", "the trained part of prompt/completion rows and of messages")
        .choices(TRAIN_ON)
        .default("completion"),
    )
    .addOption(makeFlagByName("promptFormat"))
    .option("--max-length <n>", "maximum tokens per row, limited by the model", value.parseLength, 512)
    .option("--rows <n>", "rows of data to show", value.parseCountFromZero, 3)
    .option("--json", "print the description as JSON")
    .action((paths: string[]) => runInterruptible((signal) => print(paths, command.opts<Flags>(), signal)));
}

async function print(path: readonly string[], { json, ...flags }: Flags, signal: AbortSignal): Promise<void> {
  const { inspect } = await import("../inspect/inspect.js");
  const line = new DownloadLine();
  const found = await inspect(path, {
    ...flags,
    signal,
    onProgress: (progress) => line.show(progress),
  }).finally(() => line.end());
  // Models and adapters have no rows.
  if (found.kind !== "data")
    for (const option of ["chatTemplate", "language", "dataFormat"] as const)
      if (flags[option] !== undefined)
        warn(
          `${optionName(option)} has no effect: it applies to data, and ${path} is ${found.kind === "model" ? "a model" : "an adapter"}`,
        );
  process.stdout.write(`${json ? formatJsonLine(found) : formatInspected(found).join("\n")}\n`);
  if (!isUsable(found)) throw new AnsweredNo();
}
