import { createInterface } from "node:readline";
import { Command } from "commander";
import type { CausalLM } from "../models/causal-lm.js";
import type { Message } from "../models/generate.js";
import type { Quantization } from "../models/quantization.js";
import type { StorageType } from "../train/options.js";
import { chatTemplateOption } from "./chat-template.js";
import { plural } from "./format.js";
import { type HubFlags, hubOptions, MODEL } from "./hub.js";
import { interruptible } from "./interrupt.js";
import { loadLanguageModel } from "./models.js";
import { declareSampling, generateOptions, type SamplingFlags } from "./sampling.js";
import { dtypeOption, inStorage, quantizeOption } from "./storage.js";
import * as value from "./values.js";

interface Flags extends HubFlags, SamplingFlags {
  model?: string | undefined;
  adapter?: string[] | undefined;
  system?: string | undefined;
  chatTemplate?: string | undefined;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  device: string;
}

export function chatCommand(): Command {
  const command = new Command("chat").description(
    "a conversation: each line of standard input is answered, until it ends",
  );
  hubOptions(command)
    .option("--model <name>", `${MODEL}; the adapter's own, or the embedded one, unless given`)
    .option("--adapter <folder>", "an adapter; several add up", value.collect)
    .option("--system <text>", "what the conversation begins with, as the system's")
    .addOption(chatTemplateOption());
  return declareSampling(command)
    .addOption(dtypeOption())
    .addOption(quantizeOption())
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.device, "auto")
    .action(() =>
      interruptible((signal) =>
        inStorage(command.opts<Flags>().dtype, () => chat(command.opts<Flags>(), signal)),
      ),
    );
}

async function chat(flags: Flags, signal: AbortSignal): Promise<void> {
  const { model } = await loadLanguageModel({ ...flags, adapters: flags.adapter, signal });
  try {
    const system = flags.system === undefined ? [] : [{ role: "system", content: flags.system }];
    await converse(model, flags, system, signal);
  } finally {
    model.dispose();
  }
}

async function converse(
  model: CausalLM,
  flags: Flags,
  system: readonly Message[],
  signal: AbortSignal,
): Promise<void> {
  // A model that cannot chat says so before anybody has written a line.
  model.tokenizer?.chatTemplateFor(false);
  const terminal = process.stdin.isTTY;
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
  const end = (): void => lines.close();
  signal.addEventListener("abort", end, { once: true });
  const ask = (): void => void (terminal && process.stderr.write("> "));
  let history: Message[] = [];
  try {
    ask();
    for await (const line of lines) {
      signal.throwIfAborted();
      if (line.trim() !== "") {
        const turns = fitting(model, system, [...history, { role: "user", content: line }]);
        let content = "";
        for await (const piece of model.generate([...system, ...turns], generateOptions(flags, signal))) {
          content += piece.text;
          process.stdout.write(piece.text);
        }
        process.stdout.write("\n");
        history = [...turns, { role: "assistant", content }];
      }
      ask();
    }
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener("abort", end);
    lines.close();
  }
}

/** The newest turns, as many as the model reads with half of its longest text left to answer in; at least the last. */
function fitting(model: CausalLM, system: readonly Message[], turns: readonly Message[]): Message[] {
  const limit = model.config.maxPositionEmbeddings / 2;
  for (let from = 0; from < turns.length; from += 2) {
    const kept = turns.slice(from);
    const length =
      model.tokenizer?.applyChatTemplate([...system, ...kept], { addGenerationPrompt: true }).length ?? 0;
    if (length > limit && kept.length > 1) continue;
    if (from > 0)
      process.stderr.write(`lowrank: the first ${plural(from, "message")} no longer fit, and are left out\n`);
    return kept;
  }
  return [...turns];
}
