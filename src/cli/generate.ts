import { Command } from "commander";
import type { Message } from "../models/generate.js";
import type { Quantization } from "../models/quantization.js";
import type { Piece } from "../models/text-stream.js";
import type { StorageType } from "../train/options.js";
import { makeFlagByName } from "./options/flags.js";
import { escapeGenerated, formatJsonLine } from "./terminal/escaped.js";
import { createMisuse, UsageError, warn } from "./terminal/failure.js";
import { COMMAND_LINE_REFUSALS } from "../refusals/command-line.js";
import { type HubFlags, declareHubOptions, MODEL } from "./options/hub.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { readMessages } from "./messages.js";
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
  prompt?: string | undefined;
  messages?: string | undefined;
  chatTemplate?: string | undefined;
  model?: string | undefined;
  adapter?: string[] | undefined;
  dtype?: StorageType | undefined;
  quantize?: Quantization | undefined;
  device: string;
  json?: boolean | undefined;
  logprobs?: number | true | undefined;
}

export function createGenerateCommand(): Command {
  const command = new Command("generate").description("continue a text, or answer a conversation");
  declareHubOptions(command)
    .option("--prompt <text>", "the text to continue")
    .option(
      "--messages <file>",
      "the conversation to answer, rendered by the chat template: a file with a JSON array of messages, or the array itself",
    )
    .addOption(makeFlagByName("chatTemplate"))
    .option("--model <name>", `${MODEL}; default: the adapter's base model, or the embedded one`)
    .option("--adapter <folder>", "an adapter; several are added up", value.collect);
  return declareSampling(command)
    .addOption(makeDtypeOption())
    .addOption(makeFlagByName("quantize"))
    .option("--device <name>", "auto, cpu, gpu or gpu:N", value.parseDevice, "auto")
    .option("--json", 'print {"text": …, "tokens": […]}')
    .option(
      "--logprobs [n]",
      "with --json: print the log-probability of each token, and of the n most likely alternatives",
      value.parseCountFromZero,
    )
    .action(() =>
      runInterruptible((signal) =>
        runInStorage(command.opts<Flags>().dtype, () => generate(command.opts<Flags>(), signal)),
      ),
    );
}

/** Returns the text to continue or the conversation to answer. */
function readPrompt({ prompt, messages }: Flags): string | Message[] {
  if (prompt !== undefined && messages !== undefined)
    throw createMisuse(COMMAND_LINE_REFUSALS.promptWithMessages);
  if (prompt !== undefined) return prompt;
  if (messages !== undefined) return readMessages(messages);
  throw new UsageError("generate needs --prompt TEXT or --messages FILE");
}

async function generate(flags: Flags, signal: AbortSignal): Promise<void> {
  const prompt = readPrompt(flags);
  if (flags.prompt !== undefined && flags.chatTemplate !== undefined)
    warn(
      "--chat-template has no effect: --prompt is continued without a template; give --messages to use it",
    );
  warnOfGreedy(flags);
  const { logprobs } = flags;
  if (logprobs !== undefined && !flags.json) throw createMisuse(COMMAND_LINE_REFUSALS.logprobsWithoutJson);
  const { model } = await loadLanguageModel({ ...flags, adapters: flags.adapter, signal });
  try {
    let text = "";
    const tokens: number[] = [];
    const scores: object[] = [];
    for await (const piece of model.generate(prompt, { ...readGenerateOptions(flags, signal), logprobs })) {
      text += piece.text;
      tokens.push(piece.token);
      if (logprobs !== undefined) scores.push(formatLogprobs(piece));
      if (!flags.json) process.stdout.write(escapeGenerated(piece.text));
    }
    const answer = { text, tokens, ...(logprobs !== undefined && { logprobs: scores }) };
    process.stdout.write(flags.json ? `${formatJsonLine(answer)}\n` : "\n");
  } finally {
    model.dispose();
  }
}

/** Returns a token's log-probabilities as JSON has them, with bytes as numbers. */
function formatLogprobs({ token, logprob, bytes = new Uint8Array(), topLogprobs }: Piece): object {
  const top = topLogprobs?.map((alternative) => ({ ...alternative, bytes: [...alternative.bytes] }));
  return { token, logprob, bytes: [...bytes], top };
}
