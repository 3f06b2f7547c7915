/** What generation is told, checked before any work. */
import {
  listOf,
  numberThat,
  options as checkedOptions,
  probability,
  refuse,
  text,
  whole,
} from "../argument.js";

/** How tokens are chosen. What is left out of `temperature`, `topK`, `topP` and `minP` keeps every token. */
export interface SamplingOptions {
  /** Logits are divided by it; 0, unless given, takes the likeliest token each time. */
  temperature?: number | undefined;
  /** Keeps the likeliest k, and those as likely as the last of them; 0 keeps all. */
  topK?: number | undefined;
  /**
   * Keeps the fewest of the likeliest tokens whose probabilities reach this sum, and those as likely as the last of
   * them (Holtzman et al. 2020).
   */
  topP?: number | undefined;
  /** Keeps the tokens of at least this share of the likeliest one's probability (Nguyen et al. 2024). */
  minP?: number | undefined;
  /**
   * Positive logits of tokens of the prompt, and of those generated, are divided by it, negative ones multiplied
   * (Keskar et al. 2019); 1, unless given, changes nothing.
   */
  repetitionPenalty?: number | undefined;
  /** Of the choice: a whole number; 0 unless given. The same logits and the same seed give the same token. */
  seed?: number | undefined;
}

/**
 * What `generate` takes besides the prompt. Tokens are kept as transformers keeps them, in its order: repetition
 * penalty, temperature, top-k, top-p, min-p.
 */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens after the prompt; 256 unless given, and never past the model's longest text. */
  maxNewTokens?: number | undefined;
  /** Ends where one of these texts comes; neither it nor what makes it is yielded. */
  stop?: string | readonly string[] | undefined;
  /**
   * Whether pieces carry the log-probability of their token; a number n adds the n likeliest tokens at its position with
   * their log-probabilities. The distribution is the model's own, before temperature, penalty and filters, as for OpenAI's
   * `logprobs` and transformers' `compute_transition_scores` of raw logits. False by default.
   */
  logprobs?: boolean | number | undefined;
  /** Ends it: the generator throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The options, all there. */
export interface CheckedOptions extends Required<Omit<GenerateOptions, "signal" | "stop" | "logprobs">> {
  stops: readonly string[];
  /** How many alternatives are wanted with log-probabilities; undefined for no log-probabilities. */
  logprobs: number | undefined;
  signal: AbortSignal | undefined;
}

const KNOWN = [
  "maxNewTokens",
  "temperature",
  "topK",
  "topP",
  "minP",
  "repetitionPenalty",
  "seed",
  "stop",
  "logprobs",
  "signal",
] as const;

/** Throws `ERR_OPTION` for one that is unknown, of another type or out of its range. */
export function checkedGenerateOptions(
  where: string,
  given: GenerateOptions | undefined,
  also: readonly string[] = [],
): CheckedOptions {
  const options = checkedOptions(where, given, [...KNOWN, ...also] as (typeof KNOWN)[number][]);
  const {
    maxNewTokens = 256,
    temperature = 0,
    topK = 0,
    topP = 1,
    minP = 0,
    repetitionPenalty = 1,
    seed = 0,
  } = options;
  const { stop = [], logprobs = false, signal } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  return {
    maxNewTokens: whole(where, "maxNewTokens", maxNewTokens),
    temperature: numberThat(
      where,
      "temperature",
      temperature,
      (t) => t >= 0 && Number.isFinite(t),
      "a number from 0 on",
    ),
    topK: whole(where, "topK", topK),
    topP: numberThat(where, "topP", topP, (p) => p > 0 && p <= 1, "a number above 0 and at most 1"),
    minP: probability(where, "minP", minP),
    repetitionPenalty: numberThat(
      where,
      "repetitionPenalty",
      repetitionPenalty,
      (r) => r > 0 && Number.isFinite(r),
      "a number above 0",
    ),
    seed: whole(where, "seed", seed),
    stops: typeof stop === "string" ? [stopText(where, "stop", stop)] : listOf(where, "stop", stop, stopText),
    logprobs: typeof logprobs === "boolean" ? (logprobs ? 0 : undefined) : alternatives(where, logprobs),
    signal,
  };
}

function alternatives(where: string, logprobs: unknown): number {
  const holds = (n: number): boolean => Number.isSafeInteger(n) && n >= 0;
  return numberThat(where, "logprobs", logprobs, holds, "true, false or a whole number from 0 on");
}

function stopText(where: string, name: string, value: unknown): string {
  return text(where, name, value) === ""
    ? refuse(where, name, "a text of at least one character", value)
    : (value as string);
}
