/** Text from files and models on its way to a terminal, which would obey the control characters in it. */

function asEscape(control: string): string {
  return `\\x${control.charCodeAt(0).toString(16).padStart(2, "0")}`;
}

/** `text` with its control characters (C0, DEL and C1) as escapes such as `\x1b`. */
export function escaped(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, asEscape);
}

/** The same for running text, which keeps its newlines and tabs. */
export function escapedLines(text: string): string {
  return text.replaceAll(/[^\P{Cc}\n\t]/gu, asEscape);
}

/** Generated text: escaped on a terminal, and unchanged in a file or a pipe. */
export function generated(text: string, { isTTY }: { isTTY?: boolean | undefined } = process.stdout): string {
  return isTTY === true ? escapedLines(text) : text;
}

/** A copy of `value` in which each string is escaped, by `escape`. */
export function escapedAll<T>(value: T, escape: (text: string) => string = escaped): T {
  if (typeof value === "string") return escape(value) as T;
  if (Array.isArray(value)) return value.map((one: unknown) => escapedAll(one, escape)) as T;
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, one]: [string, unknown]) => [
    escape(key),
    escapedAll(one, escape),
  ]);
  return Object.fromEntries(entries) as T;
}

/** `value` as one line of JSON. JSON leaves DEL and C1 as they are, which terminals obey, too. */
export function jsonLine(value: unknown): string {
  const unicode = (one: string): string => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replaceAll(/[\x7f-\x9f]/g, unicode);
}
