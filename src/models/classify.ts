/** Classification of texts. */
import { checkList, checkKnownOptions, refuse, checkText, checkWhole } from "../arguments/check.js";
import { findEndTokens, truncate } from "../data/encode.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { runEvaluating, noGrad, scope } from "../tensor/scope.js";
import type { SequenceClassifier } from "./classifier.js";
import { chooseProblemType, type ProblemType } from "./labels.js";
import { createNoTokenizerError } from "./pretrained.js";
import { findSpecialTokens } from "./special-tokens.js";
import { groupByLength, padRows } from "./texts-by-length.js";

/** Options of `classify`. */
export interface ClassifyOptions {
  /** Texts per forward pass; 32. */
  batchSize?: number | undefined;
  /** The maximum number of tokens of a text; by default the model's longest text. */
  maxLength?: number | undefined;
  /** How many of the highest scores to return per text; all by default. */
  topK?: number | undefined;
  /** Aborts between batches, with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The class of a text. */
export interface Classified {
  /** The class with the highest score. */
  label: string;
  /** With `problemType` `multi_label_classification` only: the classes with a probability of at least 0.5. */
  labels?: string[] | undefined;
  /**
   * Scores by class: the softmax of the logits; their sigmoid for `multi_label_classification`; the logits for
   * `regression`.
   */
  scores: Record<string, number>;
  /** Tokens of the whole text; an estimate where it exceeds `maxLength`. */
  tokens: number;
  /** Whether the text was truncated. */
  truncated: boolean;
}

const OPTIONS = ["batchSize", "maxLength", "topK", "signal"] as const satisfies (keyof ClassifyOptions)[];

export async function classify(
  model: SequenceClassifier,
  texts: readonly string[],
  options: ClassifyOptions,
): Promise<Classified[]> {
  const where = "classify";
  checkList(where, "texts", texts, checkText);
  const checked = checkKnownOptions(where, options, OPTIONS);
  const { labels, maxPositionEmbeddings: most } = model.config as typeof model.config & TextLimits;
  const { batchSize = 32, maxLength = most, topK = labels.length, signal } = checked;
  checkWhole(where, "batchSize", batchSize, 1);
  checkWhole(where, "topK", topK, 1);
  const longest = Math.min(checkWhole(where, "maxLength", maxLength, 1), most);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  const { tokenizer } = model;
  if (tokenizer === undefined) throw createNoTokenizerError(model, "classify: ");
  const twice = labels.find((label, i) => labels.indexOf(label) < i);
  if (twice !== undefined)
    throw new LowrankError(
      "ERR_OPTION",
      `classify: two classes of the model are called ${JSON.stringify(twice)}`,
    );
  throwIfAborted(signal);
  const encoded = await tokenizer.encodeRows(texts, { limit: longest + 1 });
  const end = findEndTokens(tokenizer);
  const rows = encoded.map(({ ids }) => truncate(ids, end, longest));
  const empty = rows.findIndex((ids) => ids.length === 0);
  if (empty >= 0) throw new LowrankError("ERR_OPTION", `classify: texts[${empty}] has no tokens`);
  const found: Classified[] = [];
  for (const places of groupByLength(rows, batchSize)) {
    throwIfAborted(signal);
    const batch = places.map((place) => rows[place] as Int32Array);
    for (const [i, logits] of (await computeLogits(model, batch)).entries()) {
      const place = places[i] as number;
      const { total } = encoded[place] as { total: number };
      const invalid = logits.find((logit) => !Number.isFinite(logit));
      if (invalid !== undefined)
        throw new LowrankError("ERR_NOT_FINITE", `classify: a logit of texts[${place}] is ${invalid}`);
      found[place] = {
        ...scoreClasses(logits, model.config, topK),
        tokens: total,
        truncated: total > longest,
      };
    }
  }
  return found;
}

/** Configuration fields of a text model. */
interface TextLimits {
  maxPositionEmbeddings: number;
  vocabSize: number;
}

async function computeLogits(
  model: SequenceClassifier,
  rows: readonly Int32Array[],
): Promise<Float32Array[]> {
  const { padTokenId } = findSpecialTokens(
    model.tokenizer as NonNullable<typeof model.tokenizer>,
    model.config as typeof model.config & TextLimits,
  );
  const logits = runEvaluating(() =>
    noGrad(() =>
      scope(() => {
        const { ids, attentionMask } = padRows(rows, padTokenId, model.device);
        return model.forward(ids, { attentionMask }).logits;
      }),
    ),
  );
  const values = (await logits.data()) as Float32Array;
  logits.dispose();
  const N = values.length / rows.length;
  return rows.map((_, row) => values.slice(row * N, (row + 1) * N));
}

/** Returns the class and scores of a text from its logits [N]. */
function scoreClasses(
  logits: Float32Array,
  { labels, problemType }: { labels: readonly string[]; problemType: ProblemType | undefined },
  topK: number,
): Pick<Classified, "label" | "labels" | "scores"> {
  const type = chooseProblemType(problemType, labels.length, true);
  const scores =
    type === "regression"
      ? [...logits]
      : type === "multi_label_classification"
        ? applySigmoid(logits)
        : softmax(logits);
  // Equal logits keep their order, so the first class wins, as in evaluation.
  const order = scores.map((_, i) => i).sort((a, b) => (logits[b] as number) - (logits[a] as number));
  const best = new Set(order.slice(0, topK));
  const several = type === "multi_label_classification" && {
    labels: labels.filter((_, i) => (scores[i] as number) >= 0.5),
  };
  return {
    label: labels[order[0] as number] as string,
    ...several,
    scores: Object.fromEntries(
      labels.flatMap((label, i) => (best.has(i) ? [[label, scores[i] as number]] : [])),
    ),
  };
}

function softmax(logits: Float32Array): number[] {
  const highest = Math.max(...logits);
  const weights = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

function applySigmoid(logits: Float32Array): number[] {
  return Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
}
