/**
 * Combining tensors of several adapters value by value: TIES (Yadav et al. 2023), DARE (Yu et al.
 * 2024) and pruning by magnitude. All on the host, over arrays of one length. Source: PEFT's
 * merge_utils.
 */

/** How values are dropped and added. */
export type Arithmetic = "linear" | "ties" | "dare_linear" | "dare_ties" | "magnitude_prune";

/** How ties elects a sign: by the sum of the values, or by how many have it. */
export type MajoritySign = "total" | "frequency";

/** Values of U(0, 1) for the mask of tensor number `index`. */
export type Draw = (index: number, size: number) => Float32Array;

export interface ArithmeticOptions {
  /** The share of the values that is kept. */
  density: number;
  majoritySign: MajoritySign;
  draw: Draw;
}

/** The weighted combination of `tensors`, which are left as they are. */
export function combinedValues(
  kind: Arithmetic,
  tensors: readonly Float32Array[],
  weights: readonly number[],
  { density, majoritySign, draw }: ArithmeticOptions,
): Float32Array {
  const kept = tensors.map((values, i) => {
    if (kind === "linear" || density >= 1) return values;
    return kind === "dare_linear" || kind === "dare_ties"
      ? dropped(values, density, draw(i, values.length))
      : largest(values, density);
  });
  return kind === "ties" || kind === "dare_ties"
    ? elected(kept, weights, majoritySign)
    : weightedSum(kept, weights);
}

function weightedSum(tensors: readonly Float32Array[], weights: readonly number[]): Float32Array {
  const out = new Float32Array(tensors[0]?.length ?? 0);
  for (let j = 0; j < out.length; j++) {
    let sum = 0;
    for (let i = 0; i < tensors.length; i++)
      sum += (weights[i] as number) * ((tensors[i] as Float32Array)[j] as number);
    out[j] = sum;
  }
  return out;
}

/** The mean, for each place, of the weighted values whose sign is the majority's. */
function elected(
  tensors: readonly Float32Array[],
  weights: readonly number[],
  majority: MajoritySign,
): Float32Array {
  const out = new Float32Array(tensors[0]?.length ?? 0);
  for (let j = 0; j < out.length; j++) {
    let votes = 0;
    for (const values of tensors) {
      const value = values[j] as number;
      votes += majority === "total" ? value : Math.sign(value);
    }
    const sign = votes >= 0 ? 1 : -1;
    let [sum, count] = [0, 0];
    for (let i = 0; i < tensors.length; i++) {
      const value = (tensors[i] as Float32Array)[j] as number;
      if (Math.sign(value) !== sign) continue;
      sum += (weights[i] as number) * value;
      count++;
    }
    out[j] = sum / Math.max(count, 1);
  }
  return out;
}

/** Values kept with probability `density`, and scaled so that the mean stays. */
function dropped(values: Float32Array, density: number, uniform: Float32Array): Float32Array {
  return values.map((value, j) => ((uniform[j] as number) < density ? value / density : 0));
}

/** The `density` share of the values that are largest in magnitude; of equal ones the first. */
function largest(values: Float32Array, density: number): Float32Array {
  const count = Math.floor(density * values.length);
  if (count === 0) return new Float32Array(values.length);
  const threshold = nthMagnitude(values, count);
  let above = 0;
  for (const value of values) if (Math.abs(value) > threshold) above++;
  let atThreshold = count - above;
  return values.map((value) => {
    const magnitude = Math.abs(value);
    return magnitude > threshold || (magnitude === threshold && atThreshold-- > 0) ? value : 0;
  });
}

/** The n-th largest magnitude, by counting: the bits of positive floats are in the order of their values. */
function nthMagnitude(values: Float32Array, n: number): number {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let [prefix, rest] = [0, n];
  for (const [shift, digits, fixed] of [
    [16, 0x8000, 0],
    [0, 0x10000, 0x7fff0000],
  ] as const) {
    const counts = new Uint32Array(digits);
    for (const word of bits) {
      if ((word & fixed) >>> 0 === prefix) {
        const digit = ((word & 0x7fffffff) >>> shift) % digits;
        counts[digit] = (counts[digit] as number) + 1;
      }
    }
    let digit = digits - 1;
    for (; (counts[digit] as number) < rest; digit--) rest -= counts[digit] as number;
    prefix = (prefix | (digit << shift)) >>> 0;
  }
  return new Float32Array(Uint32Array.of(prefix).buffer)[0] as number;
}
