import { createInterface } from "node:readline";
import { Command } from "commander";
import type { CausalLM } from "../models/causal-lm.js";
import type { Message } from "../models/generate.js";
import type { Quantization } from "../models/quantization.js";
import type { StorageType } from "../train/options.js";
import { didYouMean } from "../arguments/suggest.js";
import { makeFlagByName } from "./options/flags.js";
import { escapeGenerated } from "./terminal/escaped.js";
import { notice } from "./terminal/failure.js";
import { formatPlural } from "./terminal/format.js";
import { type HubFlags, declareHubOptions, MODEL } from "./options/hub.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { loadLanguageModel } from "./options/models.js";
import {
  declareSampling,
  readGenerateOptions,
  type SamplingFlags,
  warnOfGreedy,
} from "./options/sampling.js";
import { makeDtypeOption, runInStorage } from "./options/storage.js";
import * as value from "./options/values.js";

interface Flags extends HubFlags, SamplingFlags {
  model?: string | undefined;
  adapter?: string[] | undefined;
  system?: string | undefined;
  chatTemplate?: string | undefined;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  device: string;
}

export function createChatCommand(): Command {
  const command = new Command("chat").description(
    "chat with a model: answers each line of standard input until it ends; /help lists further commands",
  );
  declareHubOptions(command)
    .option("--model <name>", `${MODEL}; default: the adapter's base model, or the embedded one`)
    .option("--adapter <folder>", "an adapter; several are added up", value.collect)
    .option("--system <text>", "the system message at the start of the conversation")
    .addOption(makeFlagByName("chatTemplate"));
  return declareSampling(command)
    .addOption(makeDtypeOption())
    .addOption(makeFlagByName("quantize"))
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.parseDevice, "auto")
    .action(() =>
      runInterruptible((signal) =>
        runInStorage(command.opts<Flags>().dtype, () => chat(command.opts<Flags>(), signal)),
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
  // Fails before the first line if the model has no chat template.
  model.tokenizer?.findChatTemplate(false);
  const terminal = process.stdin.isTTY;
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
  const end = (): void => lines.close();
  signal.addEventListener("abort", end, { once: true });
  const ask = (): void => void (terminal && process.stderr.write("> "));
  let history: Message[] = [];
  const answer = async (line: string): Promise<void> => {
    const turns = selectFitting(model, system, [...history, { role: "user", content: line }]);
    let content = "";
    for await (const piece of model.generate([...system, ...turns], readGenerateOptions(flags, signal))) {
      content += piece.text;
      process.stdout.write(escapeGenerated(piece.text));
    }
    process.stdout.write("\n");
    history = [...turns, { role: "assistant", content }];
  };
  try {
    ask();
    for await (const line of lines) {
      signal.throwIfAborted();
      const command = findCommand(line);
      if (command === "/exit") break;
      if (command === "/reset") {
        history = [];
        notice("new conversation");
      } else if (command === "/help") process.stderr.write(HELP);
      else if (command !== undefined) notice(describeUnknown(command));
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

/** Commands that a line may contain instead of a message. */
const COMMANDS: Readonly<Record<string, string>> = {
  "/help": "show these commands",
  "/reset": "start a new conversation, with the same system message",
  "/exit": "exit, like the end of the input",
};

const HELP = `${Object.entries(COMMANDS)
  .map(([name, text]) => `  ${name.padEnd(8)} ${text}\n`)
  .join("")}  //…      a message that starts with a slash\n`;

/** Returns the command in a line (a slash and a word); undefined for a message. A path with more slashes is a message. */
function findCommand(line: string): string | undefined {
  return /^\s*(\/[a-zA-Z]\S*)/.exec(line)?.[1]?.match(/^\/[^/]+$/)?.[0];
}

function describeUnknown(name: string): string {
  const known = Object.keys(COMMANDS);
  return `unknown command "${name}"${didYouMean(name, known)}; use ${known.join(", ")}, or // for a message that starts with a slash`;
}

/** Returns the newest turns that fit into half of the model's context, leaving the rest for the answer; at least the last turn. */
function selectFitting(model: CausalLM, system: readonly Message[], turns: readonly Message[]): Message[] {
  const limit = model.config.maxPositionEmbeddings / 2;
  for (let from = 0; from < turns.length; from += 2) {
    const newest = turns.slice(from);
    const length =
      model.tokenizer?.applyChatTemplate([...system, ...newest], { addGenerationPrompt: true }).length ?? 0;
    if (length > limit && newest.length > 1) continue;
    if (from > 0) notice(`the first ${formatPlural(from, "message")} no longer fit and are omitted`);
    return newest;
  }
  return [...turns];
}
