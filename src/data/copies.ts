/** Detects rows with duplicate content: as separate fields, and as one text rendered from them. */

/** Fields that determine the kind of a row; Alpaca's `instruction` does so together with `output`. */
const KIND_FIELDS = ["messages", "conversations", "text", "prompt", "completion", "instruction"] as const;

type Fields = Record<string, unknown>;

/** Returns the kinds that the fields match. */
function listKinds(fields: Fields): string[] {
  return KIND_FIELDS.filter(
    (name) =>
      name in fields &&
      (name !== "instruction" || "output" in fields) &&
      (name !== "completion" || !("prompt" in fields)),
  );
}

/** The fields of a row that belong to one kind. */
export interface OneKind {
  fields: Fields;
  /** The field that was dropped because it repeats the others as rendered text. */
  copy?: string | undefined;
}

/**
 * Removes the fields that would make a row match a second kind: null fields, as tables have them, and a `text` or
 * `prompt` that repeats the other fields as rendered text. Examples: tatsu-lab/alpaca, whose `text` is instruction,
 * input and output in a template, and HuggingFaceH4/ultrachat_200k, whose `prompt` is the first message.
 *
 * Calls `refuse` where the row still matches two kinds.
 */
export function checkOneKind(given: Fields, refuse: (first: string, other: string) => never): OneKind {
  const isNull = (name: string): boolean => (given[name] ?? null) === null;
  const nulls = KIND_FIELDS.filter((name) => name in given && isNull(name));
  const fields =
    nulls.length > 0 && listKinds(given).some((name) => !isNull(name)) ? dropFields(given, nulls) : given;
  const kinds = listKinds(fields);
  if (kinds.length < 2) return { fields };
  for (const copy of ["text", "prompt"]) {
    const [kind] = kinds.filter((name) => name !== copy);
    if (kinds.length !== 2 || !kinds.includes(copy) || (copy === "prompt" && "completion" in fields))
      continue;
    if (kind !== undefined && isCopy(fields, copy, kind)) return { fields: dropFields(fields, [copy]), copy };
  }
  return refuse(kinds[0] as string, kinds[1] as string);
}

function dropFields(fields: Fields, names: readonly string[]): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)));
}

function isCopy(fields: Fields, copy: string, kind: string): boolean {
  const written = fields[copy];
  const pieces = listTexts(fields, kind);
  if (typeof written !== "string" || pieces === undefined) return false;
  // A prompt ends where the answer begins.
  const isFirst = pieces.slice(0, 2).some((piece) => piece.trim() !== "" && piece.trim() === written.trim());
  if (copy === "prompt") return isFirst || containsInOrder(written, pieces.slice(0, -1));
  return containsInOrder(written, pieces);
}

/** Returns the texts of a row; undefined if one is not a string. */
function listTexts(fields: Fields, kind: string): string[] | undefined {
  const list = fields[kind];
  const found = Array.isArray(list)
    ? list.map((turn: Fields | null) => turn?.["content"] ?? turn?.["value"])
    : kind === "instruction"
      ? [fields["instruction"], fields["input"] ?? "", fields["output"]]
      : [fields["prompt"], fields["completion"]];
  return found.every((text) => typeof text === "string") ? found : undefined;
}

/**
 * Whether a text contains all pieces in sequence and ends with the last, except for whitespace and markers such as
 * `</s>`.
 */
function containsInOrder(text: string, pieces: readonly string[]): boolean {
  const parts = pieces.map((piece) => piece.trim()).filter((piece) => piece !== "");
  let position = 0;
  for (const part of parts) {
    const found = text.indexOf(part, position);
    if (found < 0) return false;
    position = found + part.length;
  }
  const last = parts.at(-1);
  // With an empty answer, the template's own words end the text.
  if (pieces.at(-1)?.trim() === "") return last !== undefined;
  return (
    last !== undefined &&
    /^(?:\s|<[^<>]*>|\[[^[\]]*\])*$/.test(text.slice(text.lastIndexOf(last) + last.length))
  );
}
