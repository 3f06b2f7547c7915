import { createHash } from "node:crypto";

import { throwIfAborted } from "../errors.js";
import type { RandomAccess, Source } from "./source.js";

/** A source whose bytes are hashed as they are read the first time. */
export class HashedSource implements Source {
  readonly #source: Source;
  readonly #hash = createHash("sha256");
  #sha256: string | undefined;
  /** Whether a call has read it to its end. */
  #whole = false;

  constructor(source: Source) {
    this.#source = source;
  }

  get name(): string {
    return this.#source.name;
  }

  get size(): number | undefined {
    return this.#source.size;
  }

  /** Of what has been read by the first call; what is read after that changes nothing. */
  get sha256(): string {
    this.#sha256 ??= this.#hash.digest("hex");
    return this.#sha256;
  }

  async *read(signal?: AbortSignal): AsyncIterable<Uint8Array> {
    for await (const block of this.#source.read(signal)) {
      if (this.#sha256 === undefined) this.#hash.update(block);
      yield block;
    }
    this.#whole = true;
  }

  async random(signal?: AbortSignal): Promise<RandomAccess> {
    if (!this.#whole) for await (const _ of this.read(signal)) throwIfAborted(signal);
    return this.#source.random(signal);
  }

  close(): void {
    this.#source.close();
  }
}
