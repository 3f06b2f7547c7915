/** A `.json` file: an array of rows, parsed incrementally. JSON lines in a `.json` file are also accepted. */
import type { JSONParser } from "@streamparser/json";

import { LowrankError } from "../../errors.js";
import { streamText } from "../source/lines.js";
import { createRowError } from "../source/origin.js";
import { parseLines } from "./json-lines.js";
import { LONGEST_ROW, type RawRow, type RawRows, type RecordReader } from "./records.js";

type Parts = AsyncIterable<{ text: string; read: number }>;

export const json: RecordReader = {
  numbering: "row",
  async *read(source, signal) {
    const parts = streamText(source, false, signal);
    try {
      // The first character determines the kind of file.
      const first: { text: string; read: number }[] = [];
      let begin = "";
      while (begin === "") {
        const next = await parts.next();
        if (next.done === true) return;
        first.push(next.value);
        begin = next.value.text.trimStart().slice(0, 1);
      }
      const all = chainRows(first, parts);
      if (begin === "[") yield* readArrayRows(all, source.name);
      else if (begin === "{") yield* readLineRows(all, source.name);
      else {
        const expected = "a .json file holds an array of rows, or an object a line";
        throw new LowrankError("ERR_FILE_FORMAT", `${source.name}: begins with ${begin}; ${expected}`);
      }
    } finally {
      await parts.return(undefined);
    }
  },
};

async function* chainRows<T>(first: readonly T[], rest: AsyncIterable<T>): AsyncGenerator<T> {
  yield* first;
  yield* rest;
}

async function* readArrayRows(parts: Parts, file: string): AsyncGenerator<RawRows> {
  const { JSONParser } = await import("@streamparser/json");
  const origin = { file, numbering: "row" } as const;
  // Elements are emitted and dropped one by one. The buffer is for the characters of one string.
  const parser = new JSONParser({ paths: ["$.*"], keepStack: false, stringBufferSize: 1 << 16 });
  let rows: RawRow[] = [];
  let count = 0;
  let since = 0;
  parser.onValue = ({ value }) => {
    rows.push({ value, number: ++count });
    since = 0;
  };
  const parse = (work: (parser: JSONParser) => void): void => {
    try {
      work(parser);
    } catch (cause) {
      throw createRowError(origin, count + 1, `not JSON: ${formatProblem(cause)}`);
    }
  };
  for await (const { text, read } of parts) {
    since += text.length;
    // Only whitespace may follow the array, and an ended parser accepts no input.
    if (!parser.isEnded) parse(() => parser.write(text));
    else if (text.trim() !== "") throw createRowError(origin, count + 1, "not JSON: text after the array");
    if (since > LONGEST_ROW)
      throw createRowError(origin, count + 1, `is longer than ${LONGEST_ROW >> 20} MiB; cut it into rows`);
    if (rows.length > 0) yield { rows, read };
    rows = [];
  }
  if (!parser.isEnded) throw createRowError(origin, count + 1, "not JSON: the file ends within the array");
}

/** Formats the parser's message on one line, without its internal state. */
function formatProblem(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  return message
    .replaceAll(/\s+/g, " ")
    .replace(/ in state \S+$/, "")
    .replace(/ at chunk position "\d+" \(absolute position "(\d+)"\)/, " at byte $1");
}

async function* readLineRows(parts: Parts, file: string): AsyncGenerator<RawRows> {
  const origin = { file, numbering: "row" } as const;
  let remainder = "";
  let count = 0;
  let end = 0;
  const takeParsed = (text: string): RawRow[] => {
    const lines = text.split("\n").filter((line) => line.trim() !== "");
    const rows = parseLines(lines.join("\n"), count + 1, origin);
    count += rows.length;
    return rows;
  };
  for await (const { text, read } of parts) {
    end = read;
    const last = text.lastIndexOf("\n") + 1;
    if (last > 0) yield { rows: takeParsed(remainder + text.slice(0, last)), read };
    remainder = last > 0 ? text.slice(last) : remainder + text;
    if (remainder.length > LONGEST_ROW)
      throw createRowError(origin, count + 1, `is longer than ${LONGEST_ROW >> 20} MiB; cut it into rows`);
  }
  if (remainder.trim() !== "") yield { rows: takeParsed(remainder), read: end };
}
