import { createInterface } from "node:readline";
import { Command } from "commander";
import type { CausalLM } from "../models/causal-lm.js";
import type { Message } from "../models/generate.js";
import type { Quantization } from "../models/quantization.js";
import type { StorageType } from "../train/options.js";
import { didYouMean } from "../suggest.js";
import { chatTemplateOption } from "./chat-template.js";
import { generated } from "./escaped.js";
import { notice } from "./failure.js";
import { plural } from "./format.js";
import { type HubFlags, hubOptions, MODEL } from "./hub.js";
import { interruptible } from "./interrupt.js";
import { loadLanguageModel } from "./models.js";
import { declareSampling, generateOptions, type SamplingFlags, warnOfGreedy } from "./sampling.js";
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
    "a conversation: each line of standard input is answered, until it ends; /help shows what a line may say besides",
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
  warnOfGreedy(flags);
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
  const answer = async (line: string): Promise<void> => {
    const turns = fitting(model, system, [...history, { role: "user", content: line }]);
    let content = "";
    for await (const piece of model.generate([...system, ...turns], generateOptions(flags, signal))) {
      content += piece.text;
      process.stdout.write(generated(piece.text));
    }
    process.stdout.write("\n");
    history = [...turns, { role: "assistant", content }];
  };
  try {
    ask();
    for await (const line of lines) {
      signal.throwIfAborted();
      const said = commandIn(line);
      if (said === "/exit") break;
      if (said === "/reset") {
        history = [];
        notice("the conversation starts again");
      } else if (said === "/help") process.stderr.write(HELP);
      else if (said !== undefined) notice(unknownCommand(said));
      else if (line.trim() !== "") {
        await answer(line.startsWith("//") ? line.slice(1) : line);
      }
      ask();
    }
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener("abort", end);
    lines.close();
  }
}

/** Commands that a line may have instead of a message. */
const COMMANDS: Readonly<Record<string, string>> = {
  "/help": "show these commands",
  "/reset": "forget the conversation, and keep the system's text",
  "/exit": "end; so does the end of the input",
};

const HELP = `${Object.entries(COMMANDS)
  .map(([name, text]) => `  ${name.padEnd(8)} ${text}\n`)
  .join("")}  //…      a message that begins with a slash\n`;

/** The command in a line: a slash and a word; undefined where the line is a message. A path is no command. */
function commandIn(line: string): string | undefined {
  return /^\s*(\/[a-zA-Z]\S*)/.exec(line)?.[1]?.match(/^\/[^/]+$/)?.[0];
}

function unknownCommand(name: string): string {
  const known = Object.keys(COMMANDS);
  return `unknown command "${name}"${didYouMean(name, known)}; use ${known.join(", ")}, or // for a message that begins with a slash`;
}

/** The newest turns, as many as the model reads with half of its longest text left to answer in; at least the last. */
function fitting(model: CausalLM, system: readonly Message[], turns: readonly Message[]): Message[] {
  const limit = model.config.maxPositionEmbeddings / 2;
  for (let from = 0; from < turns.length; from += 2) {
    const kept = turns.slice(from);
    const length =
      model.tokenizer?.applyChatTemplate([...system, ...kept], { addGenerationPrompt: true }).length ?? 0;
    if (length > limit && kept.length > 1) continue;
    if (from > 0) notice(`the first ${plural(from, "message")} no longer fit, and are left out`);
    return kept;
  }
  return [...turns];
}
