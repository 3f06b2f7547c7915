import { Command, Option } from "commander";
import pc from "picocolors";
import { DATA_FORMATS, type DataFormat, TRAIN_ON, type TrainOn } from "../data/format.js";
import type { InspectedData } from "../train/inspect-data.js";
import { chatTemplateOption } from "./chat-template.js";
import { grouped, percent, plural } from "./format.js";
import { type HubFlags, hubOptions, MODEL } from "./hub.js";
import { interruptible } from "./interrupt.js";
import { load } from "./models.js";
import * as value from "./values.js";

interface Flags extends HubFlags {
  model?: string | undefined;
  dataFormat?: DataFormat | undefined;
  chatTemplate?: string | undefined;
  trainOn: TrainOn;
  maxLength: number;
  rows: number;
  json?: boolean | undefined;
}

export function inspectCommand(): Command {
  const command = new Command("inspect").description(
    "what a run would train on: a data file's first rows with the trained tokens marked, counts, lengths, rows left out",
  );
  return hubOptions(command)
    .argument("<file>", "a data file, .txt or .jsonl; - for standard input")
    .option("--model <name>", `${MODEL}, whose tokens are trained on; the embedded one unless given`)
    .addOption(
      new Option("--data-format <format>", "of data whose name doesn't say it").choices(DATA_FORMATS),
    )
    .addOption(chatTemplateOption())
    .addOption(
      new Option("--train-on <what>", "of rows of prompt and completion, or of messages")
        .choices(TRAIN_ON)
        .default("completion"),
    )
    .option("--max-length <n>", "tokens of a row, never over the model's", value.length, 512)
    .option("--rows <n>", "rows to show", value.countFromZero, 3)
    .option("--json", "print it as JSON")
    .action((file: string) => interruptible((signal) => inspect(file, command.opts<Flags>(), signal)));
}

async function inspect(file: string, flags: Flags, signal: AbortSignal): Promise<void> {
  const { readData } = await import("../data/read.js");
  const data = await readData(file, { format: flags.dataFormat, signal });
  try {
    const { model } = await load({
      model: flags.model,
      revision: flags.revision,
      offline: flags.offline,
      device: "cpu",
      chatTemplate: flags.chatTemplate,
      signal,
    });
    try {
      const { inspectData } = await import("../train/inspect-data.js");
      const { maxLength, rows: shown, trainOn } = flags;
      const found = await inspectData(data, model, { maxLength, shown, trainOn, signal });
      const text = flags.json ? JSON.stringify(found) : lines(found).join("\n");
      process.stdout.write(`${text}\n`);
    } finally {
      model.dispose();
    }
  } finally {
    data.close();
  }
}

/** Marks of trained text where there are no colours. */
const BRACKETS = ["⟦", "⟧"] as const;
/** Letters of the longest bar. */
const BAR = 40;

function lines(found: InspectedData): string[] {
  const { file, rows, kept, cut, dropped, tokens, trainedTokens, maxLength, lengths, notices } = found;
  const colours = process.stdout.isTTY === true && pc.isColorSupported;
  const marked = (text: string): string => (colours ? pc.green(text) : BRACKETS.join(text));
  const all: string[] = [];
  for (const [i, parts] of found.first.entries()) {
    all.push(
      `row ${i + 1} of those trained on, trained tokens ${colours ? "in green" : `in ${BRACKETS.join("")}`}:`,
    );
    all.push(parts.map(({ text, trained }) => (trained ? marked(text) : text)).join(""), "");
  }
  const share = tokens === 0 ? 0 : trainedTokens / tokens;
  all.push(
    `${file}: ${plural(rows, "row")}, ${grouped(kept)} trained on, ${grouped(cut)} cut, ${grouped(dropped)} left out`,
    `${plural(tokens, "token")}, ${grouped(trainedTokens)} of them trained on (${percent(share)}); at most ${maxLength} a row`,
  );
  const most = Math.max(1, ...lengths.map((bin) => bin.rows));
  const range = ({ from, to }: { from: number; to: number }): string => `${from}–${to}`;
  const width = Math.max(0, ...lengths.map((bin) => range(bin).length));
  for (const bin of lengths)
    all.push(
      `  ${range(bin).padStart(width)} tokens  ${"█".repeat(Math.ceil((BAR * bin.rows) / most))} ${grouped(bin.rows)}`,
    );
  const { packing } = found;
  if (packing !== undefined)
    all.push(
      `with --packing ${plural(packing.sequences, "sequence")} of ${maxLength} tokens, ` +
        `${packing.rowsPerSequence.toFixed(1)} rows in each and at most ${grouped(packing.mostRows)}: ` +
        `${percent(packing.padding)} is padding, and ${percent(packing.paddingUnpacked)} where each row is filled up`,
    );
  return [...all, ...notices];
}
