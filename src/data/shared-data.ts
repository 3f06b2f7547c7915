/** Data that several processes read in parts. */
import { LongestRows } from "./longest-rows.js";
import {
  type Content,
  countLabel,
  createNoRowsError,
  type Data,
  joinSources,
  type LabelUse,
  type PartialData,
  type ReadOptions,
  readPart,
} from "./read.js";
import { READERS } from "./readers.js";
import { checkKinds, type Row } from "./rows.js";
import { describeRow } from "./source/origin.js";
import { type FileShare, ShareSource } from "./source/share.js";

/** The counts of one process's part of a file. */
export interface PartSummary {
  count: number;
  first: Pick<Row, "kind" | "line"> | undefined;
  /** The labels in the order of their first use. */
  labels: readonly [label: string | number, use: LabelUse][];
  /** The rows with the most characters. */
  longest: readonly object[];
}

/** A part of a file, as one process has read it. */
export interface ReadShare {
  part: PartialData;
  summary: PartSummary;
}

/** Whether each process reads a part of the data only. */
export function isShared({ sources }: Data): boolean {
  return sources.every(({ longest }) => longest !== undefined);
}

/** Reads and checks this process's part of a file of JSON lines. Errors: as `readData`. */
export async function readShare(share: FileShare, options: ReadOptions): Promise<ReadShare> {
  const longest = new LongestRows<FileShare>();
  const onRows = (rows: readonly Row[]): void => longest.add(share, rows);
  const part = await readPart(new ShareSource(share), READERS.jsonl, { ...options, onRows });
  const { data, first } = part;
  const summary: PartSummary = {
    count: data.kind === "rows" || data.kind === "labels" ? data.count : 0,
    first: first && { kind: first.kind, line: first.line },
    labels: data.kind === "labels" ? [...data.labels] : [],
    longest: longest.groupBySource().get(share) ?? [],
  };
  return { part, summary };
}

/**
 * Returns the data of all files: the rows of this process, and the counts and labels of all. `summaries` has the parts
 * of each file in the file's order.
 *
 * Throws `ERR_DATA_ROW` for a file without rows, and for rows of different kinds.
 */
export function joinShares(
  localShares: readonly ReadShare[],
  summaries: readonly (readonly PartSummary[])[],
): Data {
  return joinSources(
    localShares.map(({ part }, i) => joinParts(part, summaries[i] as readonly PartSummary[])),
  );
}

function joinParts({ data: localData }: PartialData, parts: readonly PartSummary[]): Data {
  const [source] = localData.sources as readonly [Content<object[]>];
  const firsts = parts.flatMap(({ first }) => first ?? []);
  const [first] = firsts;
  if (first === undefined) throw createNoRowsError(localData.file);
  for (const other of firsts) checkKinds(source, first, other);
  const longest = new LongestRows<Content<object[]>>();
  for (const part of parts) longest.add(source, part.longest);
  const joined = {
    file: localData.file,
    count: parts.reduce((sum, { count }) => sum + count, 0),
    first: describeRow(source, first.line),
    sources: [{ ...source, longest: longest.groupBySource().get(source) ?? [] }],
  };
  if (first.kind !== "label") return { kind: "rows", ...joined } as unknown as Data;
  const labels = new Map<string | number, LabelUse>();
  for (const part of parts)
    for (const [label, use] of part.labels) countLabel(labels, label, use.rows, () => use.first);
  return { kind: "labels", ...joined, labels } as unknown as Data;
}
