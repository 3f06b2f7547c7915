/** Hashes of a source's pieces, so that several processes can each hash a part of it. */
import { createHash, type Hash } from "node:crypto";

/** The bytes of a piece. */
export const PIECE = 1 << 20;
/** The beginning of a hash over the hashes of several pieces. */
const SEVERAL = "pieces-";

/** Hashes bytes piece by piece. */
export class PieceHasher {
  readonly #hashes: Uint8Array[] = [];
  #hash: Hash = createHash("sha256");
  /** The bytes of the current piece so far. */
  #size = 0;

  update(bytes: Uint8Array): void {
    for (let offset = 0; offset < bytes.length;) {
      const count = Math.min(PIECE - this.#size, bytes.length - offset);
      this.#hash.update(bytes.subarray(offset, offset + count));
      this.#size += count;
      offset += count;
      if (this.#size === PIECE) this.#endPiece();
    }
  }

  /** Returns the hash of each piece, at least one. Nothing can be added afterwards. */
  digest(): Uint8Array[] {
    if (this.#size > 0 || this.#hashes.length === 0) this.#endPiece();
    return this.#hashes;
  }

  #endPiece(): void {
    this.#hashes.push(this.#hash.digest());
    this.#hash = createHash("sha256");
    this.#size = 0;
  }
}

/** Returns the identity of a source: the hash of its only piece, or a hash over the hashes of its pieces. */
export function joinPieces(hashes: readonly Uint8Array[]): string {
  const [first, ...others] = hashes;
  if (first !== undefined && others.length === 0) return Buffer.from(first).toString("hex");
  const hash = createHash("sha256");
  for (const piece of hashes) hash.update(piece);
  return SEVERAL + hash.digest("hex");
}

/** Returns the identity of several sources. */
export function joinIdentities(identities: readonly string[]): string {
  if (identities.length === 1) return identities[0] as string;
  const hash = createHash("sha256").update(identities.join()).digest("hex");
  return identities.some(hasPieces) ? SEVERAL + hash : hash;
}

function hasPieces(identity: string): boolean {
  return identity.startsWith(SEVERAL);
}

/**
 * Whether two identities differ. Runs once recorded a hash of the whole source, even of several pieces: it cannot be
 * compared with a hash of the pieces, and does not count as different.
 */
export function areDifferent(before: string, after: string): boolean {
  return before !== after && hasPieces(before) === hasPieces(after);
}
