/** Escapes control characters in text from files and models, which a terminal would interpret. */

function toEscape(control: string): string {
  return `\\x${control.charCodeAt(0).toString(16).padStart(2, "0")}`;
}

/** Escapes the control characters (C0, DEL and C1) in `text`, such as `\x1b`. */
export function escapeControls(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, toEscape);
}

/** Like `escapeControls`, but keeps newlines and tabs. */
export function escapeLines(text: string): string {
  return text.replaceAll(/[^\P{Cc}\n\t]/gu, toEscape);
}

/** Escapes generated text for a terminal; returns it unchanged for a file or a pipe. */
export function escapeGenerated(
  text: string,
  { isTTY }: { isTTY?: boolean | undefined } = process.stdout,
): string {
  return isTTY === true ? escapeLines(text) : text;
}

/** Copies `value` with all its strings escaped by `escape`. */
export function escapeAll<T>(value: T, escape: (text: string) => string = escapeControls): T {
  if (typeof value === "string") return escape(value) as T;
  if (Array.isArray(value)) return value.map((item: unknown) => escapeAll(item, escape)) as T;
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, item]: [string, unknown]) => [
    escape(key),
    escapeAll(item, escape),
  ]);
  return Object.fromEntries(entries) as T;
}

/** Formats `value` as one line of JSON. Also escapes DEL and C1, which JSON permits but terminals interpret. */
export function formatJsonLine(value: unknown): string {
  const unicode = (escapeUnicode: string): string =>
    `\\u${escapeUnicode.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replaceAll(/[\x7f-\x9f]/g, unicode);
}
