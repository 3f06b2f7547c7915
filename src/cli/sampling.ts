/** The options by which text is written. */
import type { Command } from "commander";
import type { GenerateOptions } from "../models/generate-options.js";
import { warn } from "./failure.js";
import * as value from "./values.js";

/** As commander hands them over. */
export interface SamplingFlags {
  maxTokens: number;
  temperature: number;
  topP?: number | undefined;
  topK?: number | undefined;
  minP?: number | undefined;
  repetitionPenalty: number;
  stop?: string[] | undefined;
  seed: number;
}

export function declareSampling(command: Command): Command {
  return command
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
    .option("--seed <n>", "of the choice", value.countFromZero, 0);
}

/** Warns of options that choose among tokens where the likeliest is always taken. */
export function warnOfGreedy({ temperature, topP, topK, minP }: SamplingFlags): void {
  if (temperature > 0) return;
  const given = { "--top-p": topP, "--top-k": topK, "--min-p": minP };
  const names = Object.entries(given).flatMap(([flag, value]) => (value === undefined ? [] : [flag]));
  if (names.length === 0) return;
  const verb = names.length === 1 ? "has" : "have";
  warn(
    `${names.join(" and ")} ${verb} no effect: at --temperature 0 the likeliest token is taken; give a --temperature above 0`,
  );
}

/** What they mean to the library. */
export function generateOptions(flags: SamplingFlags, signal: AbortSignal): GenerateOptions {
  return {
    maxNewTokens: flags.maxTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    minP: flags.minP,
    repetitionPenalty: flags.repetitionPenalty,
    seed: flags.seed,
    stop: flags.stop,
    signal,
  };
}
