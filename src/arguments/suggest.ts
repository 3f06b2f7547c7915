/** Suggests the intended name for a misspelled one. */
import leven from "leven";

/** The maximum number of edits to a suggestion, and the number of characters that a name needs per edit. */
const MOST_EDITS = 3;
const CHARACTERS_PER_EDIT = 3;
/** Minimum length for suggestions: shorter names often differ by one letter, such as f32 and i32, or max and min. */
const LEAST_EDITED = 4;

function countAllowedEdits(name: string, candidate: string): number {
  const length = Math.max(name.length, candidate.length);
  return length < LEAST_EDITED ? 0 : Math.min(MOST_EDITS, Math.floor(length / CHARACTERS_PER_EDIT));
}

/** Whether the names differ only by two swapped neighbouring characters. */
function isSwapped(from: string, to: string): boolean {
  if (from.length !== to.length) return false;
  for (let i = 1; i < from.length; i++)
    if (from.slice(0, i - 1) + from[i] + from[i - 1] + from.slice(i + 1) === to) return true;
  return false;
}

function dropDigits(name: string): string {
  return name.replaceAll(/\d/g, "");
}

/** Removes differences in case, hyphens and underscores. */
export function foldName(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, "");
}

/**
 * Returns the name in `known` closest to `name`; undefined if none is close or `name` is known. Names that differ only in
 * case, hyphens and underscores are preferred.
 */
export function findClosest(name: string, known: Iterable<string>): string | undefined {
  const candidates = new Set(known);
  if (candidates.has(name)) return undefined;
  let best: string | undefined;
  let least = MOST_EDITS + 1;
  for (const candidate of candidates) {
    if (candidate === "") continue;
    // Names that differ only in a number, such as gpu:1 or layers.2, are not misspellings.
    if (dropDigits(candidate) === dropDigits(name)) continue;
    const [from, to] = [name.toLowerCase(), candidate.toLowerCase()];
    const swapped = isSwapped(from, to);
    const edits = foldName(candidate) === foldName(name) ? 0 : swapped ? 1 : leven(from, to);
    if (edits >= least || (!swapped && edits > countAllowedEdits(name, candidate))) continue;
    [best, least] = [candidate, edits];
  }
  return best;
}

/** Returns ` (did you mean v_proj?)` for an error about `name`; empty if no name in `known` is close. */
export function didYouMean(name: unknown, known: Iterable<string>): string {
  const found = typeof name === "string" ? findClosest(name, known) : undefined;
  return found === undefined ? "" : ` (did you mean ${found}?)`;
}
