/** The columns of a table of rows: the fields of rows, by name. */
import type { Origin } from "../source/origin.js";
import { LowrankError } from "../../errors.js";
import { findNearColumn, MEANINGFUL } from "../source/field-names.js";
import { findClosest, didYouMean } from "../../arguments/suggest.js";
import type { Columns } from "./records.js";

/** Fields whose values are lists or objects; in a CSV file they are JSON text. */
export const LIST_FIELDS: ReadonlySet<string> = new Set(["messages", "conversations", "tools", "history"]);

/** Required and optional columns of each kind of row. */
const KINDS: readonly { needed: readonly string[]; more?: readonly string[] }[] = [
  { needed: ["audio", "text"] },
  { needed: ["text", "label"] },
  { needed: ["prompt", "completion"] },
  { needed: ["messages"], more: ["system", "tools"] },
  { needed: ["conversations"], more: ["system", "tools"] },
  { needed: ["instruction", "output"], more: ["input", "system", "history", "tools"] },
  { needed: ["text"] },
];

/** All fields of rows, and those that are refused because of their meaning. */
export const FIELDS: readonly string[] = [
  ...new Set([...KINDS.flatMap(({ needed, more = [] }) => [...needed, ...more]), ...MEANINGFUL]),
];

/** The required columns of all kinds, for error messages. */
const EXPECTED = KINDS.map(({ needed }) => needed.join(" and ")).join("; ");

/**
 * Checks that columns form rows of one kind. `where` is the header's name in errors, such as `a.csv:1`.
 *
 * Throws `ERR_DATA_ROW` for a missing column.
 */
export function checkNeeded(columns: readonly string[], where: string, read: Columns = "training"): void {
  if (read === "all") return checkText(columns, where);
  const has = (name: string): boolean => columns.includes(name);
  const misspelled = findNearColumn(columns);
  if (misspelled !== undefined) {
    const { name, meant } = misspelled;
    const what = `unknown column ${JSON.stringify(name)} (did you mean ${meant}?)`;
    throw new LowrankError("ERR_DATA_ROW", `${where}: ${what}; rename or remove it`);
  }
  if (KINDS.some(({ needed }) => needed.every(has))) return;
  if (has("chosen") && has("rejected")) return;
  const near = KINDS.find(({ needed }) => needed.some((name) => name !== "text" && has(name)));
  const missing = near?.needed.find((name) => !has(name));
  const unknown = columns.find((name) => didYouMean(name, FIELDS) !== "");
  if (unknown !== undefined) {
    const meant = didYouMean(unknown, FIELDS);
    throw new LowrankError(
      "ERR_DATA_ROW",
      `${where}: unknown column ${JSON.stringify(unknown)}${meant}; rename it; expected ${EXPECTED}`,
    );
  }
  const problem =
    near === undefined || missing === undefined
      ? `no column contains texts (columns: ${columns.join(", ") || "none"})`
      : `the column "${missing}" is missing next to "${near.needed.find(has)}"`;
  throw new LowrankError("ERR_DATA_ROW", `${where}: ${problem}; expected ${EXPECTED}`);
}

function checkText(columns: readonly string[], where: string): void {
  if (columns.includes("text")) return;
  const near = columns.find((name) => findClosest(name, ["text"]) !== undefined);
  const hint = near === undefined ? "" : `; rename ${JSON.stringify(near)}`;
  const found = columns.join(", ") || "none";
  throw new LowrankError("ERR_DATA_ROW", `${where}: the column "text" is missing (columns: ${found})${hint}`);
}

/**
 * Checks a header, ignoring whitespace around names.
 *
 * Returns the names; a column without a name, such as the index that pandas writes, is named by its number.
 *
 * Throws `ERR_DATA_ROW` for a repeated column, and as `checkNeeded` does.
 */
export function checkHeader(
  header: readonly string[],
  { file }: Origin,
  columns: Columns = "training",
): string[] {
  const where = `${file}:1`;
  const names = header.map((name, i) => name.trim() || `column ${i + 1}`);
  const refuse = (problem: string): never => {
    throw new LowrankError("ERR_DATA_ROW", `${where}: ${problem}`);
  };
  for (const [i, name] of names.entries()) {
    if (names.indexOf(name) < i) refuse(`two columns are named "${name}"; remove one`);
  }
  if (columns === "training" && !names.some(isNear)) {
    const found = names.map((name) => JSON.stringify(shorten(name))).join(", ");
    const example = names.length === 2 ? "text,label or prompt,completion" : "text";
    refuse(
      `the first line has no name of a field (it has ${found}); ` +
        `if it is a row, put a header above it, such as ${example}; else rename its columns`,
    );
  }
  checkNeeded(names, where, columns);
  return names;
}

/** Whether a name is a field's, or close to one. */
function isNear(name: string): boolean {
  return FIELDS.includes(name) || findClosest(name, FIELDS) !== undefined;
}

/** Characters of a cell that a message shows. */
const SHOWN = 40;

function shorten(cell: string): string {
  return cell.length > SHOWN ? `${cell.slice(0, SHOWN)}…` : cell;
}
