/** Suggests the name that a misspelled one was meant to be. */
import leven from "leven";

/** The most edits between a name and its suggestion, and how many characters a name has for each of them. */
const MOST_EDITS = 3;
const CHARACTERS_PER_EDIT = 3;
/** Shorter names differ by one letter too often: f32 and i32, max and min. */
const LEAST_EDITED = 4;

function mostEdits(name: string, candidate: string): number {
  const length = Math.max(name.length, candidate.length);
  return length < LEAST_EDITED ? 0 : Math.min(MOST_EDITS, Math.floor(length / CHARACTERS_PER_EDIT));
}

/** Whether two neighbours in one name are swapped in the other. */
function isSwapped(from: string, to: string): boolean {
  if (from.length !== to.length) return false;
  for (let i = 1; i < from.length; i++)
    if (from.slice(0, i - 1) + from[i] + from[i - 1] + from.slice(i + 1) === to) return true;
  return false;
}

function withoutDigits(name: string): string {
  return name.replaceAll(/\d/g, "");
}

/** Drops what users mix up without a typing mistake: case, hyphens and underscores. */
function folded(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, "");
}

/**
 * The name in `known` that is closest to `name`; undefined where none is close, or where `name` itself is known. Names
 * that are equal but for case, hyphens and underscores come first.
 */
export function closest(name: string, known: Iterable<string>): string | undefined {
  const candidates = new Set(known);
  if (candidates.has(name)) return undefined;
  let best: string | undefined;
  let least = MOST_EDITS + 1;
  for (const candidate of candidates) {
    if (candidate === "") continue;
    // Another number, such as gpu:1 or layers.2, is another thing and no misspelling.
    if (withoutDigits(candidate) === withoutDigits(name)) continue;
    const [from, to] = [name.toLowerCase(), candidate.toLowerCase()];
    const swapped = isSwapped(from, to);
    const edits = folded(candidate) === folded(name) ? 0 : swapped ? 1 : leven(from, to);
    if (edits >= least || (!swapped && edits > mostEdits(name, candidate))) continue;
    [best, least] = [candidate, edits];
  }
  return best;
}

/** ` (did you mean v_proj?)` for an error about `name`; empty where no name in `known` is close. */
export function didYouMean(name: unknown, known: Iterable<string>): string {
  const found = typeof name === "string" ? closest(name, known) : undefined;
  return found === undefined ? "" : ` (did you mean ${found}?)`;
}
