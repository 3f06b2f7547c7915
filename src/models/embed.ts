/** Text embeddings. */
import {
  checkFlag,
  checkList,
  checkChoice,
  checkKnownOptions,
  refuse,
  checkText,
  checkWhole,
} from "../arguments/check.js";
import { tensor } from "../tensor/create.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { runEvaluating, noGrad, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { TextEncoder } from "./encoder.js";
import { createNoTokenizerError } from "./pretrained.js";
import {
  type Pooling,
  POOLINGS,
  type SentenceSettings,
  readSentenceSettings,
} from "./sentence-transformer.js";
import type { Tokenizer } from "./tokenizer.js";
import { groupByLength, padRows } from "./texts-by-length.js";

/** Options of `embed`. */
export interface EmbedOptions {
  /**
   * How the hidden states of a text's tokens are pooled into one vector: their mean, their maximum, their sum divided
   * by the square root of their count (`mean_sqrt_len`), their mean weighted by position (`weightedmean`), or the first
   * (`cls`) or last (`lasttoken`) token's. The vectors of a list are concatenated. By default the folder's setting
   * (`1_Pooling`), else `mean`.
   */
  pooling?: Pooling | readonly Pooling[] | undefined;
  /** Whether to scale vectors to unit length; by default as the folder's modules do (`2_Normalize`), else true. */
  normalize?: boolean | undefined;
  /** Texts per forward pass; 32. */
  batchSize?: number | undefined;
  /**
   * The maximum number of tokens of a text; by default `max_seq_length` of `sentence_bert_config.json`, else the
   * model's longest text.
   */
  maxLength?: number | undefined;
  /** Aborts between batches, with the signal's reason. */
  signal?: AbortSignal | undefined;
}

const OPTIONS = [
  "pooling",
  "normalize",
  "batchSize",
  "maxLength",
  "signal",
] as const satisfies (keyof EmbedOptions)[];

export async function embed(
  model: TextEncoder,
  texts: readonly string[],
  options: EmbedOptions,
): Promise<Float32Array[]> {
  const where = "embed";
  checkList(where, "texts", texts, checkText);
  const checked = checkKnownOptions(where, options, OPTIONS);
  const { batchSize = 32, signal } = checked;
  if (checked.pooling !== undefined) checkPooling(where, checked.pooling);
  if (checked.normalize !== undefined) checkFlag(where, "normalize", checked.normalize);
  checkWhole(where, "batchSize", batchSize, 1);
  const settings = readSettings(model, checked);
  const { pooling = settings?.pooling ?? "mean", normalize = settings?.normalize ?? true } = checked;
  const { maxLength = settings?.maxLength ?? model.config.maxPositionEmbeddings } = checked;
  const poolings = [pooling].flat() as Pooling[];
  const longest = Math.min(checkWhole(where, "maxLength", maxLength, 1), model.config.maxPositionEmbeddings);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  if (model.tokenizer === undefined) throw createNoTokenizerError(model, "embed: ");
  throwIfAborted(signal);
  const written = settings === undefined ? texts : texts.map((text) => prepareText(text, settings));
  const rows = (await model.tokenizer.encodeAll(written)).map((ids) => truncate(ids, longest));
  const skipped =
    settings === undefined || settings.includePrompt ? 0 : countPromptTokens(model.tokenizer, settings);
  const vectors: Float32Array[] = texts.map(() => new Float32Array());
  for (const places of groupByLength(rows, batchSize)) {
    throwIfAborted(signal);
    const batch = places.map((place) => rows[place] as Int32Array);
    const pooled = runEvaluating(() => noGrad(() => scope(() => pool(model, batch, poolings, skipped))));
    const values = (await pooled.data()) as Float32Array;
    pooled.dispose();
    const C = values.length / batch.length;
    for (const [i, place] of places.entries()) {
      const vector = values.slice(i * C, (i + 1) * C);
      vectors[place] = normalize ? normaliseVector(vector) : vector;
    }
  }
  return vectors;
}

/** Truncates to `longest` tokens, keeping the last one, which ends a text. */
function truncate(ids: Int32Array, longest: number): Int32Array {
  if (ids.length <= longest) return ids;
  const truncated = ids.slice(0, longest);
  truncated[longest - 1] = ids.at(-1) as number;
  return truncated;
}

/**
 * Pools the hidden states of rows of ids into [B, C], or [B, n·C] with n poolings, without the first `skipped` tokens.
 */
function pool(
  model: TextEncoder,
  rows: readonly Int32Array[],
  poolings: readonly Pooling[],
  skipped: number,
): Tensor {
  const { device } = model;
  const { ids, attentionMask } = padRows(rows, model.config.padTokenId ?? 0, device);
  const [B, T] = ids.shape as [number, number];
  const hidden = model.computeHidden(ids, { attentionMask });
  const C = hidden.shape[2] as number;
  const [first, ...rest] = poolings.map((pooling) => {
    const values = new Float32Array(B * T).fill(pooling === "max" ? -Infinity : 0);
    for (const [b, row] of rows.entries()) {
      const from = Math.min(skipped, Math.max(0, row.length - 1));
      fillWeights(pooling, values.subarray(b * T, b * T + row.length), from);
    }
    if (pooling === "max") return hidden.add(tensor(values, { shape: [B, T, 1], device })).max(1);
    return tensor(values, { shape: [B, 1, T], device })
      .matmul(hidden)
      .reshape(B, C);
  }) as [Tensor, ...Tensor[]];
  return rest.reduce((all, part) => all.concat(part, 1), first);
}

/** Fills in the pooling weight of each token from `from`; for `max`, the value added to its hidden state. */
function fillWeights(pooling: Pooling, weights: Float32Array, from: number): void {
  const count = weights.length - from;
  if (pooling === "cls") weights[from] = 1;
  else if (pooling === "lasttoken") weights[weights.length - 1] = 1;
  else if (pooling === "max") weights.fill(0, from);
  else if (pooling === "mean") weights.fill(1 / count, from);
  else if (pooling === "mean_sqrt_len") weights.fill(1 / Math.sqrt(count), from);
  else {
    const sum = (count * (from + 1 + weights.length)) / 2;
    for (let i = from; i < weights.length; i++) weights[i] = (i + 1) / sum;
  }
}

/** Throws `ERR_OPTION`. */
function checkPooling(where: string, pooling: Pooling | readonly Pooling[]): void {
  if (!Array.isArray(pooling)) checkChoice(where, "pooling", pooling as Pooling, POOLINGS);
  else if (pooling.length === 0) refuse(where, "pooling", "at least one", pooling);
  else for (const mode of pooling) checkChoice(where, "pooling", mode as Pooling, POOLINGS);
}

/** Returns the folder's settings. Unsupported ones are no error where options override both of them. */
function readSettings(model: TextEncoder, given: EmbedOptions): SentenceSettings | undefined {
  if (model.folder === undefined) return undefined;
  try {
    return readSentenceSettings(model.folder);
  } catch (error) {
    const replaced = given.pooling !== undefined && given.normalize !== undefined;
    if (replaced && error instanceof LowrankError && error.code === "ERR_UNSUPPORTED_MODEL") return undefined;
    throw error;
  }
}

/** Prepends the prompt and lowercases the text, code point by code point, as the folder's settings say. */
function prepareText(text: string, { prompt, lowercase }: SentenceSettings): string {
  const fullText = prompt + text;
  return lowercase ? Array.from(fullText, (letter) => letter.toLowerCase()).join("") : fullText;
}

/** Counts the prompt's tokens, with the special tokens before it and without those after it. */
function countPromptTokens(tokenizer: Tokenizer, settings: SentenceSettings): number {
  const text = prepareText("", settings);
  if (text === "") return 0;
  const [around, plain] = [true, false].map((addSpecialTokens) =>
    tokenizer.encode(text, { addSpecialTokens }),
  );
  const ends = around?.at(-1) !== plain?.at(-1);
  return (around as Int32Array).length - Number(ends);
}

/** Scales a vector to length 1; a zero vector stays zero. */
function normaliseVector(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return vector.map((value) => value / Math.max(length, 1e-12));
}
