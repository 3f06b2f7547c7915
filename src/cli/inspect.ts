import { Command, Option } from "commander";
import { DATA_FORMATS, type DataFormat, TRAIN_ON, type TrainOn } from "../data/format.js";
import { optionName } from "../option-name.js";
import { chatTemplateOption } from "./chat-template.js";
import { jsonLine } from "./escaped.js";
import { AnsweredNo, warn } from "./failure.js";
import { DownloadLine, type HubFlags, hubOptions, MODEL } from "./hub.js";
import { inspected, isUsable } from "./inspected.js";
import { LANGUAGE } from "./language.js";
import { interruptible } from "./interrupt.js";
import * as value from "./values.js";

interface Flags extends HubFlags {
  model?: string | undefined;
  dataFormat?: DataFormat | undefined;
  language?: string | undefined;
  chatTemplate?: string | undefined;
  trainOn: TrainOn;
  maxLength: number;
  rows: number;
  json?: boolean | undefined;
}

export function inspectCommand(): Command {
  const command = new Command("inspect").description(
    "what a path holds: a model, by its headers; an adapter, and whether it fits; or what a run would train on of a data file",
  );
  return hubOptions(command)
    .argument(
      "<path...>",
      "a model's folder, file or name at the hub; an adapter's folder or file; or data: one or several .txt, .jsonl, .ndjson, .json, .csv or .parquet files, - for standard input",
    )
    .option(
      "--model <name>",
      `${MODEL}, that an adapter is to fit, or whose tokens data is trained on; of data the embedded one unless given`,
    )
    .addOption(
      new Option("--data-format <format>", "of data whose name doesn't say it").choices(DATA_FORMATS),
    )
    .option("--language <name>", LANGUAGE)
    .addOption(chatTemplateOption())
    .addOption(
      new Option("--train-on <what>", "of rows of prompt and completion, or of messages")
        .choices(TRAIN_ON)
        .default("completion"),
    )
    .option("--max-length <n>", "tokens of a row of data, never over the model's", value.length, 512)
    .option("--rows <n>", "rows of data to show", value.countFromZero, 3)
    .option("--json", "print it as JSON")
    .action((paths: string[]) => interruptible((signal) => print(paths, command.opts<Flags>(), signal)));
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
          `${optionName(option)} has no effect: it is for data, and ${path} is ${found.kind === "model" ? "a model" : "an adapter"}`,
        );
  process.stdout.write(`${json ? jsonLine(found) : inspected(found).join("\n")}\n`);
  if (!isUsable(found)) throw new AnsweredNo();
}
