/** The fields of rows: those that a kind of row uses, and those that are refused next to it because of their meaning. */
import { NearNames } from "../../arguments/near-names.js";

type Fields = Record<string, unknown>;

/** The fields of each kind of row, by its identifying field. */
const USED = {
  audio: ["audio", "text"],
  messages: ["messages", "system", "tools"],
  conversations: ["conversations", "system", "tools"],
  instruction: ["instruction", "input", "output", "system", "history", "tools"],
  prompt: ["prompt", "completion"],
  promptMessages: ["prompt", "completion", "tools"],
  label: ["text", "label"],
  text: ["text"],
} as const satisfies Record<string, readonly string[]>;

export type FieldKind = keyof typeof USED;

/** The identifying fields of kinds that are not named by them. */
const IDENTIFYING: Partial<Record<FieldKind, string>> = { label: "text", promptMessages: "prompt" };

/** Fields that have a meaning in some kind of row. Next to a kind that does not use them they are refused. */
export const MEANINGFUL: readonly string[] = [
  "system",
  "label",
  "kto_tag",
  "history",
  "text_pair",
  "tools",
  "chosen",
  "rejected",
];

/** The answers of a preference pair, which are unknown fields next to a complete row. */
const PAIR: ReadonlySet<string> = new Set(["chosen", "rejected"]);

/** Kinds whose rows can be written as messages. */
const SPOKEN: ReadonlySet<FieldKind> = new Set([
  "prompt",
  "promptMessages",
  "messages",
  "conversations",
  "instruction",
]);

/** The optional fields that are checked for misspellings, by the kind's identifying field. */
const OPTIONAL: readonly [needed: string, names: NearNames][] = [
  ["messages", new NearNames(["system", "tools"])],
  ["conversations", new NearNames(["system", "tools"])],
  ["instruction", new NearNames(["input", "system", "history", "tools"])],
  ["text", new NearNames(["label"])],
];

/** Whether a field has no content: a missing cell, an empty text or an empty list. */
export function isBlank(value: unknown): boolean {
  return (value ?? null) === null || value === "" || (Array.isArray(value) && value.length === 0);
}

/**
 * Returns the names of the fields that a row of this kind does not use and that are not blank; undefined if there are
 * none.
 *
 * Calls `refuse` for a misspelled optional field, and for a field that has a meaning but is not used by the kind.
 */
export function listUnused(
  fields: Fields,
  kind: FieldKind,
  refuse: (problem: string) => never,
): string[] | undefined {
  const used: readonly string[] = USED[kind];
  checkNames(fields, refuse);
  const others = Object.keys(fields).filter((name) => !used.includes(name) && !isBlank(fields[name]));
  if (others.length === 0) return undefined;
  const known = others.find((name) => MEANINGFUL.includes(name) && !PAIR.has(name));
  if (known !== undefined) refuse(describeUnsuitable(known, fields[known], kind));
  return others;
}

/** Describes a field that has a meaning, but not next to this kind of row, and what to do. */
function describeUnsuitable(name: string, value: unknown, kind: FieldKind): string {
  const what = `the row has a "${name}" next to "${IDENTIFYING[kind] ?? kind}"`;
  const isRating = name === "kto_tag" || (name === "label" && /^(?:true|false|0|1)$/i.test(String(value)));
  if (isRating && SPOKEN.has(kind))
    return (
      `${what}: rated answers (KTO) are not supported, and a rejected answer would be trained as a good one; ` +
      `keep the rows with ${name} true and remove the field, or train with TRL's KTOTrainer`
    );
  if (name === "text_pair")
    return `${what}, and pairs of texts are not trained; write both into "text", or remove the field`;
  if (name === "label") return `${what}, which does not use it; rename or remove it`;
  const messages = '{"messages": [{"role": "system", …}, …]}';
  const remedy = SPOKEN.has(kind)
    ? `write the row as ${name === "tools" ? '{"messages": […], "tools": […]}' : messages}, or remove the field`
    : "rename or remove it";
  return `${what}, which does not use it; ${remedy}`;
}

/**
 * Rejects a row with a misspelled optional field of its kind. Fields whose value has an unsuitable type, such as an array
 * next to `text`, are assumed to be the user's own.
 */
function checkNames(fields: Fields, refuse: (problem: string) => never): void {
  for (const [needed, names] of OPTIONAL) {
    if (!(needed in fields)) continue;
    const near = names.findMisspelled(Object.keys(fields).filter((name) => couldMean(fields[name])));
    if (near !== undefined)
      refuse(`unknown field ${JSON.stringify(near.name)} (did you mean ${near.meant}?); rename or remove it`);
    return;
  }

  function couldMean(value: unknown): boolean {
    const isText = typeof value === "string";
    return "text" in fields ? isText || Number.isSafeInteger(value) : isText || typeof value === "object";
  }
}

/** Finds a column with a misspelled optional field name, as in rows. */
export function findNearColumn(columns: readonly string[]): { name: string; meant: string } | undefined {
  const kind = OPTIONAL.find(([needed]) => columns.includes(needed));
  return kind?.[1].findMisspelled(columns);
}
