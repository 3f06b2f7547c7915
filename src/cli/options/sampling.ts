/** Options for text generation. */
import type { Command } from "commander";
import type { GenerateOptions } from "../../models/generate-options.js";
import { warn } from "../terminal/failure.js";
import * as value from "./values.js";

/** The parsed options. */
export interface SamplingFlags {
  maxTokens: number;
  temperature: number;
  topP?: number | undefined;
  topK?: number | undefined;
  minP?: number | undefined;
  repetitionPenalty: number;
  frequencyPenalty: number;
  presencePenalty: number;
  logitBias?: Record<string, number> | undefined;
  stop?: string[] | undefined;
  seed: number;
}

export function declareSampling(command: Command): Command {
  return command
    .option("--max-tokens <n>", "maximum tokens to generate", value.parseCount, 256)
    .option(
      "--temperature <t>",
      "sampling temperature; 0 always takes the most likely token",
      value.parseNotNegative,
      0,
    )
    .option(
      "--top-p <p>",
      "sample from the most likely tokens, up to this total probability",
      value.parseProbability,
    )
    .option("--top-k <n>", "sample from the n most likely tokens", value.parseCount)
    .option(
      "--min-p <p>",
      "sample from tokens with at least this fraction of the highest probability",
      value.parseFraction,
    )
    .option(
      "--repetition-penalty <r>",
      "above 1: makes tokens that already occurred less likely",
      value.parsePositive,
      1,
    )
    .option(
      "--frequency-penalty <p>",
      "subtract this from a token's logit for each time that it was chosen",
      value.parseShift,
      0,
    )
    .option(
      "--presence-penalty <p>",
      "subtract this from the logit of each token that was chosen",
      value.parseShift,
      0,
    )
    .option(
      "--logit-bias <id=bias>",
      "add the bias to the logit of a token; may be given several times",
      value.collectBiases,
    )
    .option("--stop <text>", "stop before this text; may be given several times", value.collect)
    .option("--seed <n>", "seed of the sampling", value.parseCountFromZero, 0);
}

/** Warns of sampling options that have no effect because the temperature is 0. */
export function warnOfGreedy({ temperature, topP, topK, minP }: SamplingFlags): void {
  if (temperature > 0) return;
  const given = { "--top-p": topP, "--top-k": topK, "--min-p": minP };
  const names = Object.entries(given).flatMap(([flag, value]) => (value === undefined ? [] : [flag]));
  if (names.length === 0) return;
  const verb = names.length === 1 ? "has" : "have";
  warn(
    `${names.join(" and ")} ${verb} no effect: at --temperature 0 the most likely token is taken; give a --temperature above 0`,
  );
}

/** Converts the flags to the library's options. */
export function readGenerateOptions(flags: SamplingFlags, signal: AbortSignal): GenerateOptions {
  return {
    maxNewTokens: flags.maxTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    minP: flags.minP,
    repetitionPenalty: flags.repetitionPenalty,
    frequencyPenalty: flags.frequencyPenalty,
    presencePenalty: flags.presencePenalty,
    logitBias: flags.logitBias,
    seed: flags.seed,
    stop: flags.stop,
    signal,
  };
}
