/** Data of the E2E challenge: a csv of `mr,ref`, a meaning representation and a sentence that expresses it. */
import type { CausalLM } from "lowrank";

export interface Pair {
  mr: string;
  ref: string;
}

/** Parses a csv; quoted fields may contain commas, newlines and doubled quotes. */
function records(csv: string): string[][] {
  const rows: string[][] = [[]];
  for (const [, quoted, bare, end] of csv.matchAll(/(?:"((?:[^"]|"")*)"|([^,"\r\n]*))(,|\r?\n|$)/g)) {
    (rows.at(-1) as string[]).push(quoted?.replaceAll('""', '"') ?? bare ?? "");
    if (end !== ",") rows.push([]);
  }
  return rows.filter((row) => row.join("") !== "");
}

export function readPairs(csv: string): Pair[] {
  const [head = [], ...rows] = records(csv);
  const [mr, ref] = ["mr", "ref"].map((name) => head.indexOf(name)) as [number, number];
  if (mr < 0 || ref < 0) throw new Error(`the csv's first line names mr and ref, and is ${head.join(",")}`);
  return rows.map((row) => ({ mr: row[mr] ?? "", ref: row[ref] ?? "" }));
}

/** Converts `name[The Mill], food[English]` to the form of the paper's code: `name : The Mill | food : English`. */
export function prompt(mr: string): string {
  return Array.from(
    mr.matchAll(/([^,[\]]+)\[([^\]]*)\]/g),
    ([, key, value]) => `${key?.trim()} : ${value}`,
  ).join(" | ");
}

/** One row: its tokens and its labels. */
export interface Example {
  ids: Int32Array;
  /** The ids of the sentence and the end token; −100 before them. */
  labels: Int32Array;
  trained: number;
}

/** Encodes prompt, end token, a space and the sentence, end token. For a model without a tokenizer, bytes are tokens. */
export function exampleOf({ tokenizer, config }: CausalLM, { mr, ref }: Pair, maxLength: number): Example {
  const encode = (text: string): Int32Array =>
    tokenizer?.encode(text, { addSpecialTokens: false }) ?? Int32Array.from(Buffer.from(text));
  const end = config.eosTokenIds[0] ?? 0;
  const before = [...encode(prompt(mr)), end];
  const ids = Int32Array.from([...before, ...encode(` ${ref}`), end]).slice(0, maxLength);
  const labels = ids.slice().fill(-100, 0, before.length);
  return { ids, labels, trained: Math.max(ids.length - before.length, 0) };
}
