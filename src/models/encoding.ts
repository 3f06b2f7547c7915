/** Encodings of texts and pairs of texts: token types, offsets, word ids, truncation and padding. */
import type * as Binding from "../../native/binding.js";
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
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { enterCpuUse } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { EncodingDefaults } from "./encoding-defaults.js";

/** Which text of a pair is truncated: the longer, the first or the second. */
export type Truncation = "longest_first" | "only_first" | "only_second";

/** A token's range in its text, in UTF-16 units: `text.slice(start, end)`. */
export type Offset = [start: number, end: number];

/** Options of `encode`. */
export interface EncodeOptions {
  /** Whether the tokenizer adds its special tokens; true. */
  addSpecialTokens?: boolean | undefined;
  /** A second text, appended to the first. */
  pair?: string | undefined;
  /** Whether to return an `Encoding`, which has offsets; false. */
  offsets?: boolean | undefined;
  /** Whether to return an `Encoding`, which has word ids; false. */
  wordIds?: boolean | undefined;
  /** The maximum number of tokens, special tokens included; unlimited by default. */
  maxLength?: number | undefined;
  /** Which text of a pair is truncated to fit `maxLength`; `longest_first`. */
  truncation?: Truncation | undefined;
}

/** A text, or a pair of texts, as tokens. All lists have one entry per token. */
export interface Encoding {
  /** Token ids. */
  ids: Int32Array;
  /** Token types: 0 for the first text and 1 for the second, as the tokenizer assigns them. */
  tokenTypeIds: Int32Array;
  /** Each token's range in its text, in UTF-16 units; [0, 0] for special tokens. */
  offsets: Offset[];
  /** The index of each token's word, as the pre-tokenizer splits the text; null for special tokens. */
  wordIds: (number | null)[];
  /** 0 for tokens of the first text, 1 for tokens of the second; null for special tokens. */
  sequenceIds: (number | null)[];
}

/** Options of `encodeBatch`. */
export interface EncodeBatchOptions {
  /** A second text for each text, appended to it. */
  pairs?: readonly string[] | undefined;
  /** Whether the tokenizer adds its special tokens; true. */
  addSpecialTokens?: boolean | undefined;
  /**
   * Pad rows to the longest of the batch (`true` is the same) or to `maxLength`; `longest`. Without padding, rows must
   * have equal lengths.
   */
  padding?: boolean | "longest" | "max_length" | undefined;
  /** Truncate rows to `maxLength`; `true` means `longest_first`, which is the default where `maxLength` is given. */
  truncation?: boolean | Truncation | undefined;
  /**
   * The maximum number of tokens of a row, special tokens included; by default `model_max_length` of the tokenizer's
   * configuration.
   */
  maxLength?: number | undefined;
  /** Round the padded length up to a multiple of this number. */
  padToMultipleOf?: number | undefined;
  /** The side of the padding; by default `padding_side` of the tokenizer's configuration. */
  paddingSide?: "left" | "right" | undefined;
  /** The padding id; by default the id of the tokenizer's padding token. */
  padTokenId?: number | undefined;
  /** Whether to return offsets, word ids and sequence ids; false. */
  offsets?: boolean | undefined;
  /** Whether to return offsets, word ids and sequence ids; false. */
  wordIds?: boolean | undefined;
  /** The device of the tensors; by default the default device. */
  device?: Device | undefined;
}

/** A batch for `model.forward`. */
export interface BatchEncoding {
  /** Token ids, i32 [B, T]. */
  ids: Tensor;
  /** 1 for tokens and 0 for padding, i32 [B, T]. */
  attentionMask: Tensor;
  /** Token types, i32 [B, T]; 0 for padding. */
  tokenTypeIds: Tensor;
}

/** The positions of a batch's tokens in their texts, by row and token. Padding has [0, 0], null and null. */
export interface BatchPlaces {
  /** As in `Encoding`. */
  offsets: Offset[][];
  /** As in `Encoding`. */
  wordIds: (number | null)[][];
  /** As in `Encoding`. */
  sequenceIds: (number | null)[][];
}

const TRUNCATIONS = ["longest_first", "only_first", "only_second"] as const satisfies Truncation[];
const ENCODE_OPTIONS = [
  "addSpecialTokens",
  "pair",
  "offsets",
  "wordIds",
  "maxLength",
  "truncation",
] as const satisfies (keyof EncodeOptions)[];
const BATCH_OPTIONS = [
  "pairs",
  "addSpecialTokens",
  "padding",
  "truncation",
  "maxLength",
  "padToMultipleOf",
  "paddingSide",
  "padTokenId",
  "offsets",
  "wordIds",
  "device",
] as const satisfies (keyof EncodeBatchOptions)[];

/** See `Tokenizer.encode`. */
export function encode(
  tokenizer: Binding.Tokenizer,
  defaults: () => EncodingDefaults,
  text: string,
  given: EncodeOptions,
): Int32Array | Encoding {
  const where = "encode";
  checkText(where, "text", text);
  const known = checkKnownOptions(where, given, ENCODE_OPTIONS);
  const { addSpecialTokens = true, pair, offsets = false, wordIds = false, maxLength } = known;
  const { truncation = "longest_first" } = known;
  checkFlag(where, "addSpecialTokens", addSpecialTokens);
  if (pair !== undefined) checkText(where, "pair", pair);
  checkChoice(where, "truncation", truncation, TRUNCATIONS);
  if (maxLength !== undefined) checkLength(where, "maxLength", maxLength);
  checkPair(where, "pair", truncation, pair);
  const needsOffsets = checkFlag(where, "offsets", offsets) || checkFlag(where, "wordIds", wordIds);
  if (pair === undefined && maxLength === undefined && !needsOffsets)
    return tokenizer.encode(text, addSpecialTokens);
  const left = maxLength !== undefined && defaults().truncationSide === "left";
  const request = { addSpecialTokens, maxLength, strategy: truncation, left };
  const [row] = encodeRows(where, tokenizer, [text], pair === undefined ? undefined : [pair], request) as [
    Encoding,
  ];
  return pair === undefined && !needsOffsets ? row.ids : row;
}

/** See `Tokenizer.encodeBatch`. */
export function encodeBatch(
  tokenizer: Binding.Tokenizer,
  defaults: () => EncodingDefaults,
  texts: readonly string[],
  given: EncodeBatchOptions,
): BatchEncoding & Partial<BatchPlaces> {
  const where = "encodeBatch";
  const known = checkKnownOptions(where, given, BATCH_OPTIONS);
  const { addSpecialTokens = true, offsets = false, wordIds = false, device } = known;
  checkFlag(where, "addSpecialTokens", addSpecialTokens);
  const needsOffsets = checkFlag(where, "offsets", offsets) || checkFlag(where, "wordIds", wordIds);
  const all = checkList(where, "texts", texts, checkText);
  if (all.length === 0) refuse(where, "texts", "an array of at least one text", texts);
  const pairs = known.pairs === undefined ? undefined : checkList(where, "pairs", known.pairs, checkText);
  if (pairs !== undefined && pairs.length !== all.length)
    refuse(where, "pairs", `one text for each of ${all.length} texts`, pairs);
  const limit = readLimits(where, known, defaults);
  checkPair(where, "pairs", limit.strategy, pairs);
  enterCpuUse();
  const encoded = encodeRows(where, tokenizer, all, pairs, {
    addSpecialTokens,
    maxLength: limit.cut,
    strategy: limit.strategy,
    left: limit.cut !== undefined && defaults().truncationSide === "left",
  });
  const T = computePaddedLength(where, encoded, known, limit);
  const batch = padRows(where, encoded, T, known, defaults);
  const shape = [encoded.length, T];
  const createTensor = (values: Int32Array): Tensor => tensor(values, { shape, device });
  const tensors = {
    ids: createTensor(batch.ids),
    attentionMask: createTensor(batch.mask),
    tokenTypeIds: createTensor(batch.types),
  };
  return needsOffsets ? { ...tensors, ...locateTokens(encoded, T, batch.side) } : tensors;
}

function checkLength(where: string, name: string, value: unknown): number {
  return checkWhole(where, name, value, 1);
}

/** Throws `ERR_OPTION` for `only_second` without a second text. */
function checkPair(where: string, name: string, truncation: Truncation, pair: unknown): void {
  if (truncation === "only_second" && pair === undefined)
    throw new LowrankError("ERR_OPTION", `${where}: truncation "only_second" needs ${name}`);
}

/** The length to truncate rows to, and the length to pad them to. */
interface Limits {
  cut: number | undefined;
  strategy: Truncation;
  pad: "longest" | "max_length" | undefined;
  maxLength: number | undefined;
}

function readLimits(where: string, given: EncodeBatchOptions, defaults: () => EncodingDefaults): Limits {
  const { padding = true, truncation = given.maxLength !== undefined, maxLength } = given;
  if (maxLength !== undefined) checkLength(where, "maxLength", maxLength);
  const named = typeof padding === "boolean" ? padding : checkChoice(where, "padding", padding, PADDINGS);
  const pad = named === true ? "longest" : named === false ? undefined : named;
  const cuts =
    typeof truncation === "boolean" ? truncation : checkChoice(where, "truncation", truncation, TRUNCATIONS);
  const strategy = typeof cuts === "boolean" ? "longest_first" : cuts;
  if (cuts === false && pad !== "max_length") return { cut: undefined, strategy, pad, maxLength };
  const most = maxLength ?? defaults().maxLength;
  if (most === undefined) {
    const what = cuts === false ? 'padding "max_length"' : "truncation";
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: ${what} needs maxLength, since the tokenizer's configuration has no model_max_length`,
    );
  }
  return { cut: cuts === false ? undefined : most, strategy, pad, maxLength: most };
}

const PADDINGS = ["longest", "max_length"] as const;

/** Encodes texts into rows, before padding. Throws `ERR_OPTION` for a row that cannot be truncated to the length. */
function encodeRows(
  where: string,
  tokenizer: Binding.Tokenizer,
  texts: string[],
  pairs: string[] | undefined,
  request: Binding.EncodingOptions,
): Encoding[] {
  let all: ReturnType<Binding.Tokenizer["encodings"]>;
  try {
    all = tokenizer.encodings(texts, pairs, request);
  } catch (error) {
    if (error instanceof LowrankError && error.code === "ERR_OPTION")
      throw new LowrankError(error.code, `${where}: ${error.message}`);
    throw error;
  }
  const toNullable = (value: number): number | null => (value < 0 ? null : value);
  return Array.from(all.rows, (end, i) => {
    const start = all.rows[i - 1] ?? 0;
    const starts = all.starts.subarray(start, end);
    return {
      ids: all.ids.slice(start, end),
      tokenTypeIds: all.typeIds.slice(start, end),
      offsets: Array.from(starts, (from, t): Offset => [from, all.ends[start + t] as number]),
      wordIds: Array.from(all.words.subarray(start, end), toNullable),
      sequenceIds: Array.from(all.sequences.subarray(start, end), toNullable),
    };
  });
}

/** Returns the length T of a batch. Throws `ERR_OPTION` where rows differ in length and padding is off. */
function computePaddedLength(
  where: string,
  encoded: readonly Encoding[],
  { padToMultipleOf }: EncodeBatchOptions,
  { pad, maxLength }: Limits,
): number {
  const lengths = encoded.map(({ ids }) => ids.length);
  const longest = Math.max(...lengths);
  const multiple = padToMultipleOf === undefined ? 1 : checkLength(where, "padToMultipleOf", padToMultipleOf);
  if (pad === undefined) {
    const other = lengths.find((length) => length !== longest);
    if (other === undefined) return longest;
    const what = `rows have from ${Math.min(...lengths)} to ${longest} tokens`;
    throw new LowrankError("ERR_OPTION", `${where}: ${what}; set padding, or make them equally long`);
  }
  const most = pad === "max_length" ? (maxLength as number) : longest;
  if (longest > most) {
    const row = lengths.indexOf(longest);
    const what = `row ${row} has ${longest} tokens, more than maxLength ${most}`;
    throw new LowrankError("ERR_OPTION", `${where}: ${what}; set truncation`);
  }
  return Math.ceil(most / multiple) * multiple;
}

/** Returns the ids, mask and token types of rows padded to T tokens. */
function padRows(
  where: string,
  encoded: readonly Encoding[],
  T: number,
  given: EncodeBatchOptions,
  defaults: () => EncodingDefaults,
): { ids: Int32Array; mask: Int32Array; types: Int32Array; side: "left" | "right" } {
  if (given.padTokenId !== undefined) checkWhole(where, "padTokenId", given.padTokenId);
  const sides = ["left", "right"] as const;
  const side =
    given.paddingSide === undefined
      ? defaults().paddingSide
      : checkChoice(where, "paddingSide", given.paddingSide, sides);
  const size = encoded.length * T;
  const needed = encoded.some((row) => row.ids.length < T);
  const pad = given.padTokenId ?? (needed ? defaults().padTokenId() : 0);
  if (pad === undefined) {
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: the tokenizer has no padding token; pass padTokenId, for example the id of its end token`,
    );
  }
  const [ids, mask, types] = [new Int32Array(size).fill(pad), new Int32Array(size), new Int32Array(size)];
  for (const [b, row] of encoded.entries()) {
    const start = b * T + (side === "left" ? T - row.ids.length : 0);
    ids.set(row.ids, start);
    mask.fill(1, start, start + row.ids.length);
    types.set(row.tokenTypeIds, start);
  }
  return { ids, mask, types, side };
}

/** Returns the positions of the tokens of padded rows. */
function locateTokens(encoded: readonly Encoding[], T: number, side: "left" | "right"): BatchPlaces {
  const fill = <V>(values: readonly V[], padding: () => V): V[] => {
    const added = Array.from({ length: T - values.length }, padding);
    return side === "left" ? [...added, ...values] : [...values, ...added];
  };
  return {
    offsets: encoded.map((row) => fill(row.offsets, () => [0, 0])),
    wordIds: encoded.map((row) => fill(row.wordIds, () => null)),
    sequenceIds: encoded.map((row) => fill(row.sequenceIds, () => null)),
  };
}
