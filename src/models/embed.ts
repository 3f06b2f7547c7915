/** Texts as vectors. */
import { flag, listOf, oneOf, options as known, refuse, text, whole } from "../argument.js";
import { tensor } from "../create.js";
import { throwIfAborted } from "../errors.js";
import { evaluating, noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { TextEncoder } from "./encoder.js";
import { noTokenizer } from "./pretrained.js";
import { batchesByLength, paddedRows } from "./texts-by-length.js";

/** What `embed` takes besides the texts. */
export interface EmbedOptions {
  /** The mean over a text's tokens, or its first token; `mean`. */
  pooling?: "mean" | "cls" | undefined;
  /** Whether each vector is divided by its length; true. */
  normalize?: boolean | undefined;
  /** Texts that are run at once; 32. */
  batchSize?: number | undefined;
  /** Tokens of a text that count; the model's longest unless given. */
  maxLength?: number | undefined;
  /** Ends it between batches, with its reason. */
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
  listOf(where, "texts", texts, text);
  const checked = known(where, options, OPTIONS);
  const { pooling = "mean", normalize = true, batchSize = 32, signal } = checked;
  const { maxLength = model.config.maxPositionEmbeddings } = checked;
  oneOf(where, "pooling", pooling, ["mean", "cls"]);
  flag(where, "normalize", normalize);
  whole(where, "batchSize", batchSize, 1);
  const longest = Math.min(whole(where, "maxLength", maxLength, 1), model.config.maxPositionEmbeddings);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  if (model.tokenizer === undefined) throw noTokenizer(model, "embed: ");
  throwIfAborted(signal);
  const rows = (await model.tokenizer.encodeAll(texts)).map((ids) => cut(ids, longest));
  const vectors: Float32Array[] = texts.map(() => new Float32Array());
  for (const places of batchesByLength(rows, batchSize)) {
    throwIfAborted(signal);
    const batch = places.map((place) => rows[place] as Int32Array);
    const pooled = evaluating(() => noGrad(() => scope(() => pool(model, batch, pooling))));
    const values = (await pooled.data()) as Float32Array;
    pooled.dispose();
    const C = values.length / batch.length;
    for (const [i, place] of places.entries()) {
      const vector = values.slice(i * C, (i + 1) * C);
      vectors[place] = normalize ? unit(vector) : vector;
    }
  }
  return vectors;
}

/** The first tokens and the last, which ends a text. */
function cut(ids: Int32Array, longest: number): Int32Array {
  if (ids.length <= longest) return ids;
  const kept = ids.slice(0, longest);
  kept[longest - 1] = ids.at(-1) as number;
  return kept;
}

/** Rows of ids → [B, C]. */
function pool(model: TextEncoder, rows: readonly Int32Array[], pooling: "mean" | "cls"): Tensor {
  const { device } = model;
  const { ids, attentionMask } = paddedRows(rows, model.config.padTokenId ?? 0, device);
  const [B, T] = ids.shape as [number, number];
  const share = new Float32Array(B * T);
  for (const [b, row] of rows.entries()) {
    // What a token counts for in its text's vector.
    if (pooling === "mean") share.fill(1 / row.length, b * T, b * T + row.length);
    else share[b * T] = 1;
  }
  const hidden = model.hidden(ids, { attentionMask });
  const C = hidden.shape[2] as number;
  return tensor(share, { shape: [B, 1, T], device })
    .matmul(hidden)
    .reshape(B, C);
}

/** The vector of length 1 in the same direction; a vector of zeros stays one. */
function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return vector.map((value) => value / Math.max(length, 1e-12));
}
