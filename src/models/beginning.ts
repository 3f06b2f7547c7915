/** Beginnings of long texts, for the first tokens of a text. */

/** The smallest beginning that is cut off, in UTF-16 units. */
export const SMALLEST_BEGINNING = 1 << 15;
/** The assumed number of UTF-16 units of a token; generous, because a beginning with too few tokens is encoded again. */
export const CHARACTERS_PER_TOKEN = 8;

/** The beginning of a text. */
export interface Beginning {
  text: string;
  /** The length of the part that has the same tokens in the whole text. */
  kept: number;
}

/**
 * Returns a beginning of about `size` UTF-16 units; texts up to twice this length are whole.
 *
 * It ends at a position that does not change the ids before it, which `seam` finds. A text without one in that part,
 * such as Chinese without spaces, is cut anywhere, and the second half is not kept: the cut changes only tokens of its word, and in a
 * very long word only those near it.
 */
export function cutBeginning(
  text: string,
  size: number,
  seam: (text: string) => number | undefined,
): Beginning {
  if (text.length <= 2 * size) return { text, kept: text.length };
  const beginning = text.slice(0, findCharacterEnd(text, size));
  const end = seam(beginning);
  if (end !== undefined && end > size / 2) return { text: beginning.slice(0, end), kept: end };
  return { text: text.slice(0, findCharacterEnd(text, 2 * size)), kept: beginning.length };
}

/** Returns `at`, or the position before it where `at` divides a surrogate pair. */
function findCharacterEnd(text: string, at: number): number {
  const last = text.charCodeAt(at - 1);
  return last >= 0xd800 && last <= 0xdbff ? at - 1 : at;
}
