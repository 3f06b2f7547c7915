/** Checks the options of generation before any work. */
import {
  checkList,
  checkNumberThat,
  checkKnownOptions,
  checkProbability,
  isPlain,
  refuse,
  checkText,
  checkWhole,
} from "../arguments/check.js";
import { isShift, SHIFT_RANGE } from "../arguments/logit-shift.js";

/** Sampling options. By default `temperature`, `topK`, `topP` and `minP` filter nothing. */
export interface SamplingOptions {
  /** The divisor of the logits; 0, the default, always takes the most likely token. */
  temperature?: number | undefined;
  /** Keeps the k most likely tokens, and those tied with the last of them; 0 keeps all. */
  topK?: number | undefined;
  /**
   * Keeps the smallest set of most likely tokens whose probabilities sum to at least this value, and those tied with
   * the last of them (Holtzman et al. 2020).
   */
  topP?: number | undefined;
  /** Keeps tokens whose probability is at least this fraction of the highest one (Nguyen et al. 2024). */
  minP?: number | undefined;
  /**
   * Divides positive logits of tokens that occur in the prompt or the output, and multiplies negative ones (Keskar et
   * al. 2019); 1, the default, disables it.
   */
  repetitionPenalty?: number | undefined;
  /** Subtracted from a token's logit for each time that it was chosen, as in OpenAI's API; 0, the default, disables it. */
  frequencyPenalty?: number | undefined;
  /** Subtracted from the logit of each token that was chosen, as in OpenAI's API; 0, the default, disables it. */
  presencePenalty?: number | undefined;
  /** Added to the logits of tokens, by token id, as in OpenAI's API. */
  logitBias?: Readonly<Record<number, number>> | undefined;
  /** The sampling seed, a whole number; 0 by default. Equal logits and seeds give equal tokens. */
  seed?: number | undefined;
}

/**
 * Options of `generate`. They apply in this order: logit bias, frequency and presence penalty, and then transformers'
 * order: repetition penalty, temperature, top-k, top-p, min-p.
 */
export interface GenerateOptions extends SamplingOptions {
  /** The maximum number of new tokens, 256 by default; generation also ends at the model's longest text. */
  maxNewTokens?: number | undefined;
  /** Stop strings: generation ends before the first of them, which is not yielded. */
  stop?: string | readonly string[] | undefined;
  /**
   * Whether pieces carry the log-probability of their token; a number n adds the n most likely tokens at its position
   * with their log-probabilities. The distribution is the model's, before bias, penalties, temperature and filters, as in
   * OpenAI's `logprobs` and transformers' `compute_transition_scores` of raw logits. False by default.
   */
  logprobs?: boolean | number | undefined;
  /** Aborts generation; the generator throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The checked options, with defaults filled in. */
export interface CheckedOptions extends Required<
  Omit<GenerateOptions, "signal" | "stop" | "logprobs" | "logitBias">
> {
  /** What is added to the logit of each token id. */
  logitBias: ReadonlyMap<number, number>;
  stops: readonly string[];
  /** The number of alternatives per token; undefined for no log-probabilities. */
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
  "frequencyPenalty",
  "presencePenalty",
  "logitBias",
  "seed",
  "stop",
  "logprobs",
  "signal",
] as const;

/**
 * Returns the options with defaults. Throws `ERR_OPTION` for one that is unknown, of the wrong type or out of range.
 */
export function checkGenerateOptions(
  where: string,
  given: GenerateOptions | undefined,
  also: readonly string[] = [],
): CheckedOptions {
  const options = checkKnownOptions(where, given, [...KNOWN, ...also] as (typeof KNOWN)[number][]);
  const {
    maxNewTokens = 256,
    temperature = 0,
    topK = 0,
    topP = 1,
    minP = 0,
    repetitionPenalty = 1,
    frequencyPenalty = 0,
    presencePenalty = 0,
    logitBias = {},
    seed = 0,
  } = options;
  const { stop = [], logprobs = false, signal } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  return {
    maxNewTokens: checkWhole(where, "maxNewTokens", maxNewTokens),
    temperature: checkNumberThat(
      where,
      "temperature",
      temperature,
      (t) => t >= 0 && Number.isFinite(t),
      "a number of at least 0",
    ),
    topK: checkWhole(where, "topK", topK),
    topP: checkNumberThat(where, "topP", topP, (p) => p > 0 && p <= 1, "a number above 0 and at most 1"),
    minP: checkProbability(where, "minP", minP),
    repetitionPenalty: checkNumberThat(
      where,
      "repetitionPenalty",
      repetitionPenalty,
      (r) => r > 0 && Number.isFinite(r),
      "a number above 0",
    ),
    frequencyPenalty: checkShift(where, "frequencyPenalty", frequencyPenalty),
    presencePenalty: checkShift(where, "presencePenalty", presencePenalty),
    logitBias: checkBias(where, logitBias),
    seed: checkWhole(where, "seed", seed),
    stops:
      typeof stop === "string"
        ? [formatStops(where, "stop", stop)]
        : checkList(where, "stop", stop, formatStops),
    logprobs: typeof logprobs === "boolean" ? (logprobs ? 0 : undefined) : countAlternatives(where, logprobs),
    signal,
  };
}

function checkShift(where: string, name: string, value: unknown): number {
  return checkNumberThat(where, name, value, isShift, `a number ${SHIFT_RANGE}`);
}

/** Returns the biases by token id. Whether the model has these tokens is checked with the model. */
function checkBias(where: string, given: unknown): Map<number, number> {
  if (!isPlain(given)) refuse(where, "logitBias", "an object with a number for each token id", given);
  return new Map(
    Object.entries(given).map(([id, value]) => {
      if (!/^(?:0|[1-9]\d{0,9})$/.test(id)) refuse(where, "the names in logitBias", "token ids", id);
      return [Number(id), checkShift(where, `logitBias[${id}]`, value)];
    }),
  );
}

function countAlternatives(where: string, logprobs: unknown): number {
  const holds = (n: number): boolean => Number.isSafeInteger(n) && n >= 0;
  return checkNumberThat(where, "logprobs", logprobs, holds, "true, false or a whole number of at least 0");
}

function formatStops(where: string, name: string, value: unknown): string {
  return checkText(where, name, value) === ""
    ? refuse(where, name, "a string of at least one character", value)
    : (value as string);
}
