/** The E2E challenge's data: a csv of `mr,ref`, a meaning representation and a sentence that says it. */
import type { CausalLM } from "lowrank";

export interface Pair {
  mr: string;
  ref: string;
}

/** Fields of a csv, which quotes may hold commas, line ends and, doubled, quotes. */
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

/** `name[The Mill], food[English]` as the paper's code has it: `name : The Mill | food : English`. */
export function prompt(mr: string): string {
  return Array.from(
    mr.matchAll(/([^,[\]]+)\[([^\]]*)\]/g),
    ([, key, value]) => `${key?.trim()} : ${value}`,
  ).join(" | ");
}

/** One row: what it is tokenised to, and what of it is trained on. */
export interface Example {
  ids: Int32Array;
  /** The sentence's ids and the end; −100 before them. */
  labels: Int32Array;
  trained: number;
}

/** Prompt, end token, a space and the sentence, end token. A model without a tokenizer reads bytes. */
export function exampleOf({ tokenizer, config }: CausalLM, { mr, ref }: Pair, maxLength: number): Example {
  const encode = (text: string): Int32Array =>
    tokenizer?.encode(text, { addSpecialTokens: false }) ?? Int32Array.from(Buffer.from(text));
  const end = config.eosTokenIds[0] ?? 0;
  const before = [...encode(prompt(mr)), end];
  const ids = Int32Array.from([...before, ...encode(` ${ref}`), end]).slice(0, maxLength);
  const labels = ids.slice().fill(-100, 0, before.length);
  return { ids, labels, trained: Math.max(ids.length - before.length, 0) };
}
