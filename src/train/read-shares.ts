/** Reads the data of a run on several ranks: of large files of JSON lines, each rank reads its part only. */
import { open, stat } from "node:fs/promises";

import { isFiles, listFiles, type TrainingData } from "../data/given.js";
import { closeData, type Data, readData } from "../data/read.js";
import { detectFormat } from "../data/readers.js";
import { joinShares, type ReadShare, readShare } from "../data/shared-data.js";
import { PIECE } from "../data/source/pieces.js";
import { createShare, divideFile, type FileShare, hashSamples, surveyRange } from "../data/source/share.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import { createProgress, type Files } from "./prepare.js";
import type { RunContext } from "./run.js";
import type { Settings } from "./settings.js";
import type { RunRanks } from "./ranks/run-ranks.js";

/** A file of JSON lines, by which ranks recognise the same file. */
interface SharedFile {
  path: string;
  size: number;
  samples: string;
}

/** The bytes of a file in which a row of speech is recognised. */
const BEGINNING = 1 << 16;

/**
 * Reads the training data and the held-out data. Of files of JSON lines with at least a piece for each rank, a rank reads
 * the lines that begin in its range; other data is read whole by each rank.
 *
 * Errors: as `readData`, on all ranks; `ERR_OPTION` if the files differ among the ranks.
 */
export async function readSharedFiles(
  ranks: RunRanks,
  settings: Settings,
  context: Pick<RunContext, "emit">,
): Promise<Files> {
  const read = (given: TrainingData, name: string): Promise<Data> =>
    readShared(ranks, given, name, settings, context);
  const train = await read(settings.data, "data");
  const { evalData } = settings;
  try {
    return { train, held: evalData === undefined ? undefined : await read(evalData, "evalData") };
  } catch (error) {
    closeData(train);
    throw error;
  }
}

async function readShared(
  ranks: RunRanks,
  given: TrainingData,
  name: string,
  settings: Settings,
  { emit }: Pick<RunContext, "emit">,
): Promise<Data> {
  const { dataFormat: format, signal } = settings;
  const described = await ranks.meet(await describeFiles(ranks, given, settings).catch(() => undefined));
  const onProgress = createProgress("read", emit);
  const options = { format, name, signal, onProgress };
  if (described.includes(undefined)) return ranks.agree(() => readData(given, options));
  const files = await ranks.agree(() => compareFiles(described as SharedFile[][], name));
  const shares: FileShare[] = [];
  for (const { path, size } of files) {
    const range = divideFile(size, ranks.rank, ranks.size);
    const onRead = (read: number): void => onProgress({ file: path, read, size: range.end - range.start });
    const surveys = await ranks.meet(await ranks.agree(() => surveyRange(path, range, { signal, onRead })));
    shares.push(createShare(path, size, ranks.rank, surveys));
  }
  const own = await ranks.agree(async () => {
    const read: ReadShare[] = [];
    for (const share of shares) read.push(await readShare(share, options));
    return read;
  });
  const summaries = await ranks.meet(own.map(({ summary }) => summary));
  return ranks.agree(() =>
    joinShares(
      own,
      shares.map((_, file) => summaries.map((one) => one[file] as (typeof one)[number])),
    ),
  );
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
    if (await beginsWithSpeech(path)) return undefined;
    files.push({ path, size: found.size, samples: "" });
  }
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (size < ranks.size * PIECE) return undefined;
  for (const file of files) file.samples = await hashSamples(file.path, file.size);
  return files;
}

/** Whether the first row of a file names a recording. Each rank reads all recordings. */
async function beginsWithSpeech(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(BEGINNING), 0, BEGINNING, 0);
    const [line = ""] = buffer.subarray(0, bytesRead).toString("utf8").trimStart().split("\n");
    return /"audio"\s*:/.test(line);
  } finally {
    await file.close();
  }
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
