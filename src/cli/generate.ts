import { Command } from "commander";
import type { StorageType } from "../train/options.js";
import { type HubFlags, hubOptions, MODEL } from "./hub.js";
import { interruptible } from "./interrupt.js";
import { loadLanguageModel } from "./models.js";
import { dtypeOption, inStorage } from "./storage.js";
import * as value from "./values.js";

interface Flags extends HubFlags {
  prompt: string;
  model?: string | undefined;
  adapter?: string[] | undefined;
  maxTokens: number;
  temperature: number;
  topP?: number | undefined;
  topK?: number | undefined;
  minP?: number | undefined;
  repetitionPenalty: number;
  stop?: string[] | undefined;
  seed: number;
  dtype?: StorageType | undefined;
  device: string;
  json?: boolean | undefined;
}

export function generateCommand(): Command {
  const command = new Command("generate").description("continue a text");
  return hubOptions(command)
    .requiredOption("--prompt <text>", "the text to go on with")
    .option("--model <name>", `${MODEL}; the adapter's own, or the embedded one, unless given`)
    .option("--adapter <folder>", "an adapter; several add up", value.collect)
    .option("--max-tokens <n>", "tokens to write", value.count, 256)
    .option("--temperature <t>", "0 takes the likeliest token each time", value.notNegative, 0)
    .option("--top-p <p>", "choose among the likeliest, up to this probability", value.probability)
    .option("--top-k <n>", "choose among the n likeliest", value.count)
    .option(
      "--min-p <p>",
      "choose among those of at least this share of the likeliest's probability",
      value.fraction,
    )
    .option(
      "--repetition-penalty <r>",
      "above 1, what was written is less likely to come again",
      value.positive,
      1,
    )
    .option("--stop <text>", "end in front of this text; may be given several times", value.collect)
    .option("--seed <n>", "of the choice", value.countFromZero, 0)
    .addOption(dtypeOption())
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.device, "auto")
    .option("--json", 'print {"text": …, "tokens": […]}')
    .action(() =>
      interruptible((signal) =>
        inStorage(command.opts<Flags>().dtype, () => generate(command.opts<Flags>(), signal)),
      ),
    );
}

async function generate(flags: Flags, signal: AbortSignal): Promise<void> {
  const { model } = await loadLanguageModel({
    model: flags.model,
    revision: flags.revision,
    offline: flags.offline,
    adapters: flags.adapter,
    device: flags.device,
    dtype: flags.dtype,
    signal,
  });
  try {
    let text = "";
    const tokens: number[] = [];
    const pieces = model.generate(flags.prompt, {
      maxNewTokens: flags.maxTokens,
      temperature: flags.temperature,
      topK: flags.topK,
      topP: flags.topP,
      minP: flags.minP,
      repetitionPenalty: flags.repetitionPenalty,
      seed: flags.seed,
      stop: flags.stop,
      signal,
    });
    for await (const piece of pieces) {
      text += piece.text;
      tokens.push(piece.token);
      if (!flags.json) process.stdout.write(piece.text);
    }
    process.stdout.write(flags.json ? `${JSON.stringify({ text, tokens })}\n` : "\n");
  } finally {
    model.dispose();
  }
}
