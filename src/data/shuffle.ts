/**
 * A generator of 32-bit random numbers: splitmix32, a Weyl sequence with murmur3's finalizer. Its results are the same
 * on every machine. It is used only for the order of rows.
 */
export function createSplitmix32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
}

/** Returns the order of `length` rows in an epoch (from 0), by Fisher–Yates; a function of seed and epoch only. */
export function shuffleEpoch(length: number, seed: number, epoch: number): Uint32Array {
  const key = createSplitmix32(seed);
  const high = createSplitmix32(Math.floor(seed / 2 ** 32) ^ key());
  const next = createSplitmix32(high() ^ createSplitmix32(epoch)());
  const order = Uint32Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor((next() / 2 ** 32) * (i + 1));
    const swapped = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = swapped;
  }
  return order;
}
