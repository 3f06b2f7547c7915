import { findClosest } from "./suggest.js";

/** Size limit of the cache of lookups; rows usually repeat the same few fields. */
const MOST_KNOWN = 10_000;

/**
 * Finds misspellings of `wanted` names. A name counts as misspelled only if the wanted name itself is absent, so that
 * other fields of the same objects, such as `id` or `timestamp`, may have any name.
 */
export class NearNames {
  readonly #closest = new Map<string, string | undefined>();

  constructor(private readonly wanted: readonly string[]) {}

  /** Returns the first misspelled name and the intended one; undefined if there is none. */
  findMisspelled(names: Iterable<string>): { name: string; meant: string } | undefined {
    const all = new Set(names);
    for (const name of all) {
      const meant = this.#findClosest(name);
      if (meant !== undefined && !all.has(meant)) return { name, meant };
    }
    return undefined;
  }

  #findClosest(name: string): string | undefined {
    if (this.#closest.has(name)) return this.#closest.get(name);
    const closest = findClosest(name, this.wanted);
    if (this.#closest.size < MOST_KNOWN) this.#closest.set(name, closest);
    return closest;
  }
}
