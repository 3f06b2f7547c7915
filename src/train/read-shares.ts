/** Reads the data of a run on several ranks: of large files of JSON lines, each rank reads its part only. */
import { stat } from "node:fs/promises";

import { isFiles, listFiles, type TrainingData } from "../data/given.js";
import { detectFormat } from "../data/readers.js";
import { joinShares, type PartSummary, type ReadShare, readShare } from "../data/shared-data.js";
import { PIECE } from "../data/source/pieces.js";
import { createShare, divideFile, type FileShare, hashSamples, surveyRange } from "../data/source/share.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { createProgress, createReader, type ReadGiven } from "./prepare.js";
import type { RunContext } from "./run.js";
import type { Settings } from "./settings.js";
import type { RunRanks } from "./ranks/run-ranks.js";

/** A file of JSON lines, by which ranks recognise the same file. */
interface SharedFile {
  path: string;
  size: number;
  samples: string;
}

/**
 * Returns a function that reads data on several ranks. Of files of JSON lines with at least a piece for each rank, a rank
 * reads the lines that begin in its range; each rank reads other data, and rows of speech, whole.
 *
 * Its errors: as `readData`, on all ranks; `ERR_OPTION` if the files differ among the ranks.
 */
export function createSharedReader(
  ranks: RunRanks,
  settings: Settings,
  context: Pick<RunContext, "emit">,
): ReadGiven {
  const readWhole = createReader(settings, context);
  return async (given, name) => {
    const described = await ranks.gatherAll(
      await describeFiles(ranks, given, settings).catch(() => undefined),
    );
    if (described.includes(undefined)) return ranks.agree(() => readWhole(given, name));
    const files = await ranks.agree(() => compareFiles(described as SharedFile[][], name));
    const { own, summaries } = await readRanges(ranks, files, settings, context);
    if (summaries.flat().some(({ first }) => first?.kind === "audio"))
      return ranks.agree(() => readWhole(given, name));
    return ranks.agree(() => joinShares(own, summaries));
  };
}

/** Reads this rank's range of each file. Returns its rows, and the summaries of all ranks for each file. */
async function readRanges(
  ranks: RunRanks,
  files: readonly SharedFile[],
  { signal }: Settings,
  { emit }: Pick<RunContext, "emit">,
): Promise<{ own: ReadShare[]; summaries: PartSummary[][] }> {
  const onProgress = createProgress("read", emit);
  const shares: FileShare[] = [];
  for (const { path, size } of files) {
    const range = divideFile(size, ranks.rank, ranks.size);
    const onRead = (read: number): void => onProgress({ file: path, read, size: range.end - range.start });
    const surveys = await ranks.gatherAll(
      await ranks.agree(() => surveyRange(path, range, { signal, onRead })),
    );
    shares.push(createShare(path, size, ranks.rank, surveys));
  }
  const own = await ranks.agree(async () => {
    const read: ReadShare[] = [];
    for (const share of shares) read.push(await readShare(share, { signal, onProgress }));
    return read;
  });
  const byRank = await ranks.gatherAll(own.map(({ summary }) => summary));
  return { own, summaries: files.map((_, file) => byRank.map((all) => all[file] as PartSummary)) };
}

/** Returns the files if ranks share them; undefined for other data. Errors of the system count as other data. */
async function describeFiles(
  ranks: RunRanks,
  given: TrainingData,
  { dataFormat, lora, signal }: Settings,
): Promise<SharedFile[] | undefined> {
  // EVA reads rows of the whole data before the first step.
  if (ranks.size === 1 || !isFiles(given) || lora.initLoraWeights === "eva") return undefined;
  const files: SharedFile[] = [];
  for (const path of listFiles(given)) {
    throwIfAborted(signal);
    const found = await stat(path);
    const format = detectFormat(path, dataFormat);
    if (!found.isFile() || (format !== "jsonl" && format !== "ndjson")) return undefined;
    files.push({ path, size: found.size, samples: "" });
  }
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (size < ranks.size * PIECE) return undefined;
  for (const file of files) file.samples = await hashSamples(file.path, file.size);
  return files;
}

/** Returns the files. Throws `ERR_OPTION` if a rank sees another file under the same path. */
function compareFiles(all: readonly (readonly SharedFile[])[], name: string): readonly SharedFile[] {
  const [first = []] = all;
  for (const [i, { path, size, samples }] of first.entries()) {
    const rank = all.findIndex((files) => files[i]?.size !== size || files[i]?.samples !== samples);
    if (rank < 0) continue;
    const other = all[rank]?.[i]?.size;
    const how = other === size ? "other content" : `${size} bytes on rank 0 and ${other} on rank ${rank}`;
    const data = name === "data" ? "the training data" : "the held-out data";
    const what = `the ranks differ in ${data}: ${path} has ${how}`;
    throw new LowrankError("ERR_OPTION", `finetune: ${what}; give all ranks the same file`);
  }
  return first;
}
