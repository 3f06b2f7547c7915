import { Command } from "commander";
import { grouped } from "./format.js";
import { interruptible } from "./interrupt.js";
import { load } from "./models.js";
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
    .option("--max-length <n>", "tokens of a row", value.length, 512)
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.device, "auto")
    .option("--json", 'print {"loss": …, "perplexity": …, "tokens": …}')
    .action(() => interruptible((signal) => evaluateFile(command.opts<Flags>(), signal)));
}

async function evaluateFile(flags: Flags, signal: AbortSignal): Promise<void> {
  const [{ readData }, { examplesOf, trainedExamples }] = await Promise.all([
    import("../data/read.js"),
    import("../data/examples.js"),
  ]);
  const data = await readData(flags.data);
  const adapters = flags.adapter === undefined ? [] : [flags.adapter];
  const { model } = await load({ model: flags.model, adapters, device: flags.device, signal });
  try {
    const [{ evaluate }, { tokenisation }] = await Promise.all([
      import("../train/evaluate.js"),
      import("../train/prepare.js"),
    ]);
    const { tokenizer, maxLength, eosTokenIds, padTokenId } = tokenisation(model, flags.maxLength);
    const all = await examplesOf(data, tokenizer, { maxLength, eosTokenIds, signal });
    const examples = trainedExamples(all, data.file, maxLength);
    const result = await evaluate(model, examples, { batchSize: flags.batchSize, padTokenId, signal });
    const { loss, perplexity, tokens } = result;
    const text = `loss ${loss.toFixed(4)}, perplexity ${perplexity.toPrecision(5)}, over ${grouped(tokens)} tokens`;
    process.stdout.write(`${flags.json ? JSON.stringify({ loss, perplexity, tokens }) : text}\n`);
  } finally {
    model.dispose();
  }
}
