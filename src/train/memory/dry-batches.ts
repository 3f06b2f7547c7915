/** The batches for counting a run's memory: its own for small data, otherwise the largest that it can form. */
import {
  type Batch,
  listBatchesInOrder,
  buildBatch,
  type BatchPlan,
  buildPackedBatch,
} from "../../data/batches.js";
import { LongestRows } from "../../data/longest-rows.js";
import type { Content, Data, DataChunk } from "../../data/read.js";
import type { Example, Examples } from "../../data/store.js";
import { LowrankError } from "../../errors.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { Objective } from "../objective.js";
import { createObjective, prepare, type Files } from "../prepare.js";
import { planBatches } from "../run-parts.js";
import { createNoRowsError, listPartBatches, type PartSettings, sizeSteps } from "../replicas/shares.js";
import type { Settings } from "../settings.js";

/** The parts of a run that are recorded to count its memory. */
export interface DryBatches {
  objective: Objective;
  /** The batches of each recorded step. */
  steps: Batch[][];
  /** Held-out batches. */
  held: Batch[];
  /** Whether the run also has batches of other shapes. */
  others: boolean;
}

/** Data up to this size, in bytes or, without a known size, in rows, is tokenised completely. */
const SMALL = { bytes: 128 << 10, rows: 512 };
/** The sample of a larger running text: its beginning. Of larger rows it is the ones with the most characters. */
const SAMPLE = { characters: 1 << 16, charactersPerToken: 8 };
/** The number of steps that are searched for the largest batch. */
export const SCANNED = 256;

/** Tokenises the data, or a sample with the longest rows. `batches` limits the recorded batches. Errors: as in `prepare`. */
export async function chooseDryBatches(
  model: PretrainedModel,
  files: Files,
  labels: readonly string[] | undefined,
  settings: PartSettings,
  batches: number,
): Promise<DryBatches> {
  const quiet = { emit: () => {} };
  const small = isSmall(files.train) && (files.held === undefined || isSmall(files.held));
  if (small) {
    const closable = { train: ignoreClose(files.train), held: files.held && ignoreClose(files.held) };
    const { objective, train, held } = await prepare(model, closable, labels, settings, quiet);
    const plan = planBatches(settings, objective, train);
    const { padTokenId } = objective.tokenisation;
    return {
      objective,
      ...chooseSteps(plan, settings, batches),
      held: chooseHeldOut(held, settings.batchSize, padTokenId),
    };
  }
  const sample = {
    train: sampleData(files.train, settings),
    held: files.held && sampleData(files.held, settings),
  };
  try {
    const undivided = { ...settings, evalSplit: undefined };
    const { objective, train, held } = await prepare(model, sample, labels, undivided, quiet);
    const splits = settings.evalSplit !== undefined;
    return createLargestBatches(
      objective,
      settings,
      train,
      splits ? train : held,
      files.train.kind !== "text",
    );
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === "ERR_NO_TRAINED_TOKENS")) throw error;
    // Truncation leaves nothing to train in the longest rows; other rows may still reach the maximum length.
    const objective = createObjective(model, { ...settings, labels });
    const longest = [createExample(objective.tokenisation.maxLength)];
    return createLargestBatches(objective, settings, longest, [], true);
  }
}

function isSmall(data: Data): boolean {
  const sizes = data.sources.map(({ size }) => size);
  if (!sizes.includes(undefined))
    return sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0) <= SMALL.bytes;
  return data.kind !== "text" && data.count <= SMALL.rows;
}

/** Returns data that ignores `close`, so that it can be read again. */
function ignoreClose(data: Data): Data {
  const sources = (data.sources as readonly Content<unknown>[]).map((source) => ({
    ...source,
    close: () => {},
  }));
  return { ...data, sources } as Data;
}

/** Returns the longest rows of the data, or the beginning of a running text. */
function sampleData(data: Data, { maxLength }: Settings): Data {
  if (data.kind === "text") {
    const most = Math.max(SAMPLE.characters, SAMPLE.charactersPerToken * maxLength);
    // A shorter source may not fill a block of tokens.
    const largest = data.sources.reduce((a, b) => ((b.size ?? 0) > (a.size ?? 0) ? b : a));
    const parts = (signal?: AbortSignal) => readBeginning(largest.parts(signal), most);
    return { ...data, sources: [{ ...largest, parts, close: () => {} }] };
  }
  const all = data.sources as readonly Content<object[]>[];
  let found: Promise<Map<Content<object[]>, object[]>> | undefined;
  const sources = all.map((source) => ({
    ...source,
    close: () => {},
    async *parts(signal?: AbortSignal): AsyncGenerator<DataChunk<object[]>> {
      found ??= findLongestRows(all, signal);
      const part = (await found).get(source);
      if (part !== undefined) yield { part, read: 0 };
    },
  }));
  return { ...data, sources } as unknown as Data;
}

async function* readBeginning(
  parts: AsyncIterable<DataChunk<string>>,
  most: number,
): AsyncGenerator<DataChunk<string>> {
  let characters = 0;
  for await (const { part, read } of parts) {
    yield { part: part.slice(0, most - characters), read };
    characters += part.length;
    if (characters >= most) return;
  }
}

/** Finds the rows with the most characters across all sources; returns them by source. */
async function findLongestRows(
  sources: readonly Content<object[]>[],
  signal: AbortSignal | undefined,
): Promise<Map<Content<object[]>, object[]>> {
  const found = new LongestRows<Content<object[]>>();
  for (const source of sources) {
    if (source.longest !== undefined) found.add(source, source.longest);
    else for await (const { part } of source.parts(signal)) found.add(source, part);
  }
  return found.groupBySource();
}

function createExample(length: number): Example {
  return { ids: new Int32Array(length), labels: new Int32Array(length), trained: length - 1 };
}

/** Returns steps of the largest batches that rows of these lengths form. */
function createLargestBatches(
  objective: Objective,
  settings: PartSettings,
  train: Examples,
  held: Examples,
  others: boolean,
): DryBatches {
  const { batchSize, gradientAccumulation } = sizeSteps(settings);
  const { padTokenId, maxLength } = objective.tokenisation;
  const batch = settings.packing
    ? createFullSequences(batchSize, maxLength, padTokenId)
    : buildBatch(findLongest(train, batchSize), padTokenId);
  const step = Array.from({ length: Math.min(2, gradientAccumulation) }, () => batch);
  const evaluated = held.length === 0 ? [] : [buildBatch(findLongest(held, settings.batchSize), padTokenId)];
  return { objective, steps: [step, step], held: evaluated, others: others && !settings.packing };
}

/** Returns full sequences of two rows each. */
function createFullSequences(rows: number, length: number, padTokenId: number): Batch {
  const half = Math.ceil(length / 2);
  const sequence = [createExample(half), createExample(length - half)].filter(({ ids }) => ids.length > 0);
  return buildPackedBatch(
    Array.from({ length: rows }, () => sequence),
    padTokenId,
  );
}

/** Returns the `count` longest rows; repeats them if there are fewer. */
function findLongest(rows: Examples, count: number): Example[] {
  const all = Array.from({ length: rows.length }, (_, row) => rows.at(row) as Example);
  all.sort((a, b) => b.ids.length - a.ids.length);
  return Array.from({ length: count }, (_, row) => all[row % all.length] as Example);
}

/** Returns a key of the properties that determine a batch's memory. */
function describeKind({ shape, trained, positions }: Batch): string {
  return `${shape.join()} ${trained} ${positions !== undefined}`;
}

function countTokens({ shape: [rows, length] }: Batch): number {
  return rows * length;
}

/** Returns the first steps of a plan, and the step with its largest batch. */
function chooseSteps(
  plan: BatchPlan,
  settings: PartSettings,
  most: number,
): Pick<DryBatches, "steps" | "others"> {
  const steps: Batch[][] = [];
  const [shapes, all] = [new Set<string>(), new Set<string>()];
  let [left, highest] = [most, 0];
  let large: { batch: Batch; size: number } | undefined;
  const scanned = Math.min(plan.steps, SCANNED);
  for (let step = 0; step < scanned; step++) {
    const batches = listPartBatches(plan, step, settings);
    // A short step may have no row for one of several devices.
    if (batches.length === 0) continue;
    // At least two steps are recorded, because the first step allocates the optimizer's moments.
    const share = batches.slice(0, steps.length === 0 ? Math.max(1, Math.floor(most / 2)) : left);
    if (left > 0) {
      steps.push(share);
      left -= share.length;
      for (const batch of share) highest = Math.max(highest, countTokens(batch));
      for (const batch of share) shapes.add(describeKind(batch));
    }
    for (const batch of batches) {
      all.add(describeKind(batch));
      if (countTokens(batch) > (large?.size ?? 0)) large = { batch, size: countTokens(batch) };
    }
  }
  if (large !== undefined && large.size > highest) {
    steps.push([large.batch, large.batch]);
    shapes.add(describeKind(large.batch));
  }
  if (steps.length === 0) throw createNoRowsError(settings);
  const unseen = scanned < plan.steps && all.size > 1;
  return { steps, others: unseen || [...all].some((kind) => !shapes.has(kind)) };
}

/** Returns the first held-out batch, and the largest. */
function chooseHeldOut(held: Examples, batchSize: number, padTokenId: number): Batch[] {
  let first: Batch | undefined;
  let large: Batch | undefined;
  for (const batch of listBatchesInOrder(held, batchSize, padTokenId)) {
    first ??= batch;
    if (large === undefined || countTokens(batch) > countTokens(large)) large = batch;
  }
  return first === undefined || large === undefined ? [] : first === large ? [first] : [first, large];
}
