import { Command, Option } from "commander";
import { makeFlagByName } from "./options/flags.js";
import { escapeAll, formatJsonLine } from "./terminal/escaped.js";
import { warn } from "./terminal/failure.js";
import { DATA_FORMATS, type DataFormat, type PromptFormat } from "../data/format.js";
import { describeLoweredLength, listWarnings } from "../data/report.js";
import type { Evaluation } from "../train/evaluate.js";
import type { Quantization } from "../models/quantization.js";
import type { StorageType } from "../train/options.js";
import { formatConfusion } from "./confusion-table.js";
import { DATA_FILES } from "../train/options/data.js";
import { describeUnmeasured } from "./terminal/progress.js";
import { formatCount, formatPercent, formatPlural } from "./terminal/format.js";
import { type HubFlags, declareHubOptions, MODEL } from "./options/hub.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { load } from "./options/models.js";
import { makeDtypeOption, runInStorage } from "./options/storage.js";
import * as value from "./options/values.js";

interface Flags extends HubFlags {
  data: string[];
  dataFormat?: DataFormat | undefined;
  language?: string | undefined;
  chatTemplate?: string | undefined;
  promptFormat: PromptFormat;
  model?: string | undefined;
  adapter?: string | undefined;
  batchSize: number;
  maxLength?: number | undefined;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  device: string;
  json?: boolean | undefined;
}

export function createEvaluateCommand(): Command {
  const command = new Command("evaluate").description(
    "measure mean loss and perplexity on a data file; for labelled rows also accuracy, macro-F1 and a confusion matrix",
  );
  return declareHubOptions(command)
    .requiredOption("--data <file>", DATA_FILES, value.collect)
    .addOption(
      new Option("--data-format <format>", "the format of data without a known file extension").choices(
        DATA_FORMATS,
      ),
    )
    .option("--model <name>", `${MODEL}; default: the adapter's base model, or the embedded one`)
    .option("--adapter <folder>", "an adapter")
    .option("--batch-size <n>", "rows per batch", value.parseCount, 1)
    .option(
      "--max-length <n>",
      "maximum tokens per row, limited by the model; default: 512",
      value.parseLength,
    )
    .addOption(makeFlagByName("language"))
    .addOption(makeFlagByName("chatTemplate"))
    .addOption(makeFlagByName("promptFormat"))
    .addOption(makeDtypeOption())
    .addOption(makeFlagByName("quantize"))
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.parseDevice, "auto")
    .option("--json", "print the results as JSON")
    .action(() =>
      runInterruptible((signal) =>
        runInStorage(command.opts<Flags>().dtype, () => evaluateFile(command.opts<Flags>(), signal)),
      ),
    );
}

async function evaluateFile(flags: Flags, signal: AbortSignal): Promise<void> {
  const [{ closeData, readData }, { keepTrained }] = await Promise.all([
    import("../data/read.js"),
    import("../data/examples.js"),
  ]);
  const data = await readData(flags.data, { format: flags.dataFormat, signal });
  const adapters = flags.adapter === undefined ? [] : [flags.adapter];
  const { model } = await load({
    model: flags.model,
    revision: flags.revision,
    offline: flags.offline,
    adapters,
    device: flags.device,
    dtype: flags.dtype,
    quantize: flags.quantize,
    chatTemplate: flags.chatTemplate,
    signal,
  });
  try {
    const [
      { evaluate },
      { createObjective },
      { reportUnusedLanguage: unusedLanguage, reportUnusedTemplate: unusedTemplate },
    ] = await Promise.all([
      import("../train/evaluate.js"),
      import("../train/prepare.js"),
      import("../train/without-effect.js"),
    ]);
    const objective = createObjective(model, {
      maxLength: flags.maxLength ?? 512,
      promptFormat: flags.promptFormat,
      language: flags.language,
    });
    const { maxLength, modelLength } = objective.tokenisation;
    const limits = { maxLength, modelLength };
    const rows = await objective.createExamples(data, signal);
    const lowered = flags.maxLength !== undefined && maxLength < flags.maxLength;
    if (lowered) warn(describeLoweredLength(flags.maxLength as number, maxLength));
    for (const report of rows.reports) for (const message of listWarnings(report, limits)) warn(message);
    for (const message of unusedLanguage(model, flags.language)) warn(message);
    for (const message of unusedTemplate(model, flags.chatTemplate)) warn(message);
    const examples = keepTrained(rows, data.file, limits, rows.reports);
    const result = await evaluate(model, objective, examples, { batchSize: flags.batchSize, signal });
    process.stdout.write(
      `${flags.json ? formatJsonLine(selectFigures(result)) : formatLines(escapeAll(result)).join("\n")}\n`,
    );
  } finally {
    closeData(data);
    model.dispose();
  }
}

function selectFigures({ loss, perplexity, tokens, classes }: Evaluation): object {
  if (classes === undefined) return { loss, perplexity, tokens };
  const { accuracy, macroF1, labels, confusion, withoutRows } = classes;
  return { loss, accuracy, macroF1, rows: tokens, labels, confusion, withoutRows };
}

function formatLines({ loss, perplexity, tokens, classes }: Evaluation): string[] {
  if (classes === undefined) {
    return [
      `loss ${loss.toFixed(4)}, perplexity ${perplexity.toPrecision(5)}, over ${formatCount(tokens)} tokens`,
    ];
  }
  const { accuracy, macroF1 } = classes;
  const first = `accuracy ${formatPercent(accuracy)}, macro-F1 ${macroF1.toFixed(4)}${describeUnmeasured(classes, "rows")}, loss ${loss.toFixed(4)}, over ${formatPlural(tokens, "row")}`;
  return [first, "", ...formatConfusion(classes)];
}
