import { closest } from "./suggest.js";

/** Names that were looked up before: rows have the same few fields again and again. */
const MOST_KNOWN = 10_000;

/**
 * Finds unknown names that are misspelled `wanted` ones. A name is one of those only while the wanted one itself is
 * absent, so that other fields of the same objects, such as `id` or `timestamp`, may have any name.
 */
export class NearNames {
  readonly #found = new Map<string, string | undefined>();

  constructor(private readonly wanted: readonly string[]) {}

  /** The first of these names that is misspelled, and the name that is meant; undefined if there is none. */
  in(names: Iterable<string>): { name: string; meant: string } | undefined {
    const all = new Set(names);
    for (const name of all) {
      const meant = this.#closest(name);
      if (meant !== undefined && !all.has(meant)) return { name, meant };
    }
    return undefined;
  }

  #closest(name: string): string | undefined {
    if (this.#found.has(name)) return this.#found.get(name);
    const meant = closest(name, this.wanted);
    if (this.#found.size < MOST_KNOWN) this.#found.set(name, meant);
    return meant;
  }
}
