import { LowrankError, throwIfAborted } from "../../errors.js";
import { joinPieces, PieceHasher } from "./pieces.js";
import type { RandomAccess, ByteSource } from "./source.js";

/** A source whose content is identified by a hash. */
export interface IdentifiedSource extends ByteSource {
  /** The hash of its bytes, piece by piece. */
  readonly sha256: string;
}

/** Returns the error for a source that was changed between two reads. */
export function createChangedError({ name }: ByteSource): LowrankError {
  const what = `${name}: changed after it was checked; leave it unchanged until training has begun`;
  return new LowrankError("ERR_DATA_ROW", what);
}

/** A source whose bytes are hashed during the first read; later reads check them against that hash at the end. */
export class HashedSource implements IdentifiedSource {
  readonly #source: ByteSource;
  readonly #hash = new PieceHasher();
  #sha256: string | undefined;
  /** Whether a read has reached the end. */
  #isComplete = false;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  get name(): string {
    return this.#source.name;
  }

  get size(): number | undefined {
    return this.#source.size;
  }

  /** The hash of the bytes of the first read; fixed once it is accessed. */
  get sha256(): string {
    this.#sha256 ??= joinPieces(this.#hash.digest());
    return this.#sha256;
  }

  /**
   * Reads the source from its beginning.
   *
   * Throws as the source does; `ERR_DATA_ROW` at the end where the bytes differ from the first read.
   */
  async *read(signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const again = this.#sha256 === undefined ? undefined : new PieceHasher();
    const hash = again ?? this.#hash;
    for await (const block of this.#source.read(signal)) {
      hash.update(block);
      yield block;
    }
    this.#isComplete = true;
    if (again !== undefined && joinPieces(again.digest()) !== this.#sha256) throw createChangedError(this);
  }

  async openRandomAccess(signal?: AbortSignal): Promise<RandomAccess> {
    if (!this.#isComplete) for await (const _ of this.read(signal)) throwIfAborted(signal);
    return this.#source.openRandomAccess(signal);
  }

  close(): void {
    this.#source.close();
  }
}
