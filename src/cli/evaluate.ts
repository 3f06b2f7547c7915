import { Command } from "commander";
import type { Example } from "../data/examples.js";
import { grouped } from "./format.js";
import { interruptible } from "./interrupt.js";
import { load, type LoadedModel } from "./models.js";
import * as value from "./values.js";

interface Flags {
  data: string;
  model?: string;
  adapter?: string;
  batchSize: number;
  maxLength: number;
  device: string;
  json?: boolean;
}

export function evaluateCommand(): Command {
  const command = new Command("evaluate").description("mean loss and perplexity over a data file");
  return command
    .requiredOption("--data <file>", ".txt or .jsonl")
    .option("--model <folder>", "the model; the adapter's own, or the embedded one, unless given")
    .option("--adapter <folder>", "an adapter")
    .option("--batch-size <n>", "rows at a time", value.count, 1)
    .option("--max-length <n>", "tokens of a row", value.count, 512)
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.device, "auto")
    .option("--json", 'print {"loss": …, "perplexity": …, "tokens": …}')
    .action(() => interruptible((signal) => evaluateFile(command.opts<Flags>(), signal)));
}

async function evaluateFile(flags: Flags, signal: AbortSignal): Promise<void> {
  const { readData } = await import("../data/read.js");
  const data = await readData(flags.data);
  const adapters = flags.adapter === undefined ? [] : [flags.adapter];
  const loaded = await load({ model: flags.model, adapters, device: flags.device, signal });
  try {
    const { padTokenId, examples } = await prepare(loaded, data, flags.maxLength, signal);
    const { evaluate } = await import("../train/evaluate.js");
    const result = await evaluate(loaded.model, examples, { batchSize: flags.batchSize, padTokenId, signal });
    const { loss, perplexity, tokens } = result;
    const text = `loss ${loss.toFixed(4)}, perplexity ${perplexity.toPrecision(5)}, over ${grouped(tokens)} tokens`;
    process.stdout.write(`${flags.json ? JSON.stringify({ loss, perplexity, tokens }) : text}\n`);
  } finally {
    loaded.model.dispose();
  }
}

async function prepare(
  { model, path }: LoadedModel,
  data: Awaited<ReturnType<typeof import("../data/read.js").readData>>,
  longest: number,
  signal: AbortSignal,
): Promise<{ padTokenId: number; examples: Example[] }> {
  const [{ examplesOf, trainedExamples }, { specialTokens }, { LowrankError }] = await Promise.all([
    import("../data/examples.js"),
    import("../models/special-tokens.js"),
    import("../errors.js"),
  ]);
  const { tokenizer, config } = model;
  if (tokenizer === undefined) {
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: the model has no tokenizer.json`);
  }
  const { eosTokenIds, padTokenId } = specialTokens(path, tokenizer, config);
  const maxLength = Math.min(longest, config.maxPositionEmbeddings);
  const examples = await examplesOf(data, tokenizer, { maxLength, eosTokenIds, signal });
  return { padTokenId, examples: trainedExamples(examples, data.file, maxLength) };
}
