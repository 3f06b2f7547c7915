/** A token of a `tokenizer.json` that is matched as a whole; special by default. */
export function addedToken(
  id: number,
  content: string,
  more: Readonly<Record<string, unknown>> = {},
): { id: number; content: string; [flag: string]: unknown } {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return { id, content, ...flags, ...more };
}
