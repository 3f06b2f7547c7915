import { existsSync, realpathSync } from "node:fs";
import { extname } from "node:path";
import { Command, Option } from "commander";
import { countRow, createReport, describeLoweredLength, listWarnings } from "../data/report.js";
import type { Origin } from "../data/source/origin.js";
import { DATA_FORMATS, type DataFormat } from "../data/format.js";
import type { ByteSource } from "../data/source/source.js";
import { LowrankError } from "../errors.js";
import type { SequenceClassifier } from "../models/classifier.js";
import type { Quantization } from "../models/quantization.js";
import type { StorageType } from "../train/options.js";
import { makeFlagByName } from "./options/flags.js";
import { UsageError, warn } from "./terminal/failure.js";
import { type HubFlags, declareHubOptions, MODEL } from "./options/hub.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { load } from "./options/models.js";
import { describeOrigin, formatOutput, streamWindows, type TextRow } from "./predict-rows.js";
import { checkOutput, type Output, openStagedFile, createStandardOutput } from "./terminal/staged-output.js";
import { makeDtypeOption, runInStorage } from "./options/storage.js";
import * as value from "./options/values.js";

interface Flags extends HubFlags {
  data?: string | undefined;
  dataFormat?: DataFormat | undefined;
  text?: string[] | undefined;
  output?: string | undefined;
  yes?: boolean | undefined;
  model?: string | undefined;
  adapter?: string | undefined;
  topK?: number | undefined;
  batchSize: number;
  maxLength?: number | undefined;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  device: string;
}

const STANDARD_INPUT = "-";
/** The number of rows that are sorted by length together. */
const WINDOW = 1024;
/** The default maximum of tokens per row, as for `evaluate`. */
const MAX_LENGTH = 512;

export function createPredictCommand(): Command {
  const command = new Command("predict").description(
    "classify texts: prints one line of JSON per text with its label and scores, by input row",
  );
  return declareHubOptions(command)
    .option(
      "--data <file>",
      'the texts: .jsonl, .ndjson, .json, .csv or .parquet with a field "text" per row, .txt with one text per line, - for standard input',
    )
    .addOption(
      new Option("--data-format <format>", "the format of data without a known file extension").choices(
        DATA_FORMATS,
      ),
    )
    .option("--text <text>", "a text; may be given several times", value.collect)
    .option("--output <file>", "the file to write; default: standard output")
    .option("--yes", "replace --output if it exists")
    .option("--model <name>", `${MODEL}; default: the adapter's base model`)
    .option("--adapter <folder>", "an adapter")
    .option("--top-k <n>", "write the n highest scores; default: all", value.parseCount)
    .option("--batch-size <n>", "rows per batch", value.parseCount, 32)
    .option(
      "--max-length <n>",
      "maximum tokens per row, limited by the model; default: 512",
      value.parseLength,
    )
    .addOption(makeDtypeOption())
    .addOption(makeFlagByName("quantize"))
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.parseDevice, "auto")
    .action(() =>
      runInterruptible((signal) =>
        runInStorage(command.opts<Flags>().dtype, () => predict(command.opts<Flags>(), signal)),
      ),
    );
}

async function predict(flags: Flags, signal: AbortSignal): Promise<void> {
  if (flags.model === undefined && flags.adapter === undefined)
    throw new UsageError("predict needs --adapter DIR or --model NAME: a classifier");
  if (flags.output !== undefined) checkOutput(flags.output, flags.yes === true);
  const rows = await openRows(flags, signal);
  let output: Output | undefined;
  let model: SequenceClassifier | undefined;
  try {
    await rows.check();
    model = await loadClassifier(flags, signal);
    output = flags.output === undefined ? createStandardOutput() : await openStagedFile(flags.output);
    await classifyRows(model, rows, output, flags, signal);
    await output.finish();
  } finally {
    await output?.discard();
    rows.close();
    model?.dispose();
  }
}

/** The texts to classify, in windows. */
interface TextWindows {
  /** The name of the source in messages. */
  origin: Origin;
  /** Validates all rows before any is classified; throws at the first invalid one. */
  check(): Promise<void>;
  windows(): AsyncIterable<TextRow[]>;
  close(): void;
}

async function openRows(
  { data, dataFormat, text, output }: Flags,
  signal: AbortSignal,
): Promise<TextWindows> {
  if ((data === undefined) === (text === undefined))
    throw new UsageError("predict needs --data FILE or --text TEXT, and not both");
  if (data === undefined) {
    const rows = (text ?? []).map((line, i) => ({ text: line, line: i + 1 }));
    const windows = async function* (): AsyncGenerator<TextRow[]> {
      yield await Promise.resolve(rows);
    };
    return {
      origin: { file: "--text", numbering: "line" },
      windows,
      check: () => Promise.resolve(),
      close: () => {},
    };
  }
  const format = chooseFormat(data, dataFormat);
  if (output !== undefined && isSameFile(data, output))
    throw new UsageError("--output is the file of --data; name another file");
  const { openSource } = await import("../data/source/source.js");
  // From pipe to pipe, rows are classified as they arrive.
  const streamed = data === STANDARD_INPUT && output === undefined && format !== "parquet";
  const source = streamed ? openStandardInput() : await openSource(data);
  const windows = (): AsyncIterable<TextRow[]> =>
    streamWindows(source, format, { least: streamed ? 1 : WINDOW, signal });
  const check = async (): Promise<void> => {
    if (streamed) return;
    for await (const _ of windows());
  };
  return { origin: describeOrigin(source, format), windows, check, close: () => source.close() };
}

/** Standard input, read once. */
function openStandardInput(): ByteSource {
  return {
    name: "standard input",
    size: undefined,
    openRandomAccess: () =>
      Promise.reject(new LowrankError("ERR_INTERNAL", "standard input is read from its beginning")),
    read: (signal) => {
      signal?.addEventListener("abort", () => process.stdin.destroy(), { once: true });
      return process.stdin as AsyncIterable<Uint8Array>;
    },
    close: () => {},
  };
}

function chooseFormat(data: string, given: DataFormat | undefined): DataFormat {
  const ending = extname(data).toLowerCase().slice(1);
  const format = given ?? DATA_FORMATS.find((candidate) => candidate === ending);
  if (format !== undefined) return format;
  const which =
    data === STANDARD_INPUT ? "standard input has no name" : `the name of ${data} says no format of data`;
  throw new UsageError(`--data: ${which}; give --data-format ${DATA_FORMATS.join(", ")}`);
}

function isSameFile(a: string, b: string): boolean {
  return existsSync(a) && existsSync(b) && realpathSync(a) === realpathSync(b);
}

async function loadClassifier(flags: Flags, signal: AbortSignal): Promise<SequenceClassifier> {
  const adapters = flags.adapter === undefined ? [] : [flags.adapter];
  const { model, name } = await load({ ...flags, adapters, signal });
  const { SequenceClassifier } = await import("../models/classifier.js");
  if (model instanceof SequenceClassifier) return model;
  model.dispose();
  const what = `${name}: this model is not a classifier of texts`;
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${what}; name a classifier, or with --adapter one that was trained on rows of text and label`,
  );
}

async function classifyRows(
  model: SequenceClassifier,
  rows: TextWindows,
  output: Output,
  { batchSize, maxLength: requestedLength, topK }: Flags,
  signal: AbortSignal,
): Promise<void> {
  const { maxPositionEmbeddings: most } = model.config as typeof model.config & {
    maxPositionEmbeddings: number;
  };
  const maxLength = Math.min(requestedLength ?? MAX_LENGTH, most);
  if (requestedLength !== undefined && maxLength < requestedLength)
    warn(describeLoweredLength(requestedLength, maxLength));
  const report = createReport(rows.origin);
  for await (const window of rows.windows()) {
    for (let start = 0; start < window.length; start += WINDOW) {
      const part = window.slice(start, start + WINDOW);
      const texts = part.map(({ text }) => text);
      const found = await model.classify(texts, { batchSize, maxLength, topK, signal });
      const lines = part.map((row, i) => {
        const classified = found[i] as (typeof found)[number];
        countRow(report, row.line, { total: classified.tokens, maxLength, trained: 1 });
        return formatOutput(row, classified);
      });
      await output.write(lines.join(""));
    }
  }
  for (const message of listWarnings(report, { maxLength, modelLength: most })) warn(message);
}
