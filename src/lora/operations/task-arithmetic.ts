/**
 * Combines tensors of several adapters element by element: TIES (Yadav et al. 2023), DARE (Yu et al. 2024) and magnitude
 * pruning. All functions run on the host, over arrays of equal length. Source: PEFT's merge_utils.
 */

/** How values are dropped and summed. */
export type Arithmetic = "linear" | "ties" | "dare_linear" | "dare_ties" | "magnitude_prune";

/** How ties elects a sign: by the sum of the values, or by the number of values with each sign. */
export type MajoritySign = "total" | "frequency";

/** Returns values of U(0, 1) for the mask of tensor number `index`. */
export type Draw = (index: number, size: number) => Float32Array;

export interface ArithmeticOptions {
  /** The fraction of values to keep. */
  density: number;
  majoritySign: MajoritySign;
  draw: Draw;
}

/** Returns the weighted combination of `tensors` without changing them. */
export function combineValues(
  kind: Arithmetic,
  tensors: readonly Float32Array[],
  weights: readonly number[],
  { density, majoritySign, draw }: ArithmeticOptions,
): Float32Array {
  const pruned = tensors.map((values, i) => {
    if (kind === "linear" || density >= 1) return values;
    return kind === "dare_linear" || kind === "dare_ties"
      ? dropRandomly(values, density, draw(i, values.length))
      : keepLargest(values, density);
  });
  return kind === "ties" || kind === "dare_ties"
    ? electSigns(pruned, weights, majoritySign)
    : sumWeighted(pruned, weights);
}

function sumWeighted(tensors: readonly Float32Array[], weights: readonly number[]): Float32Array {
  const out = new Float32Array(tensors[0]?.length ?? 0);
  for (let j = 0; j < out.length; j++) {
    let sum = 0;
    for (let i = 0; i < tensors.length; i++)
      sum += (weights[i] as number) * ((tensors[i] as Float32Array)[j] as number);
    out[j] = sum;
  }
  return out;
}

/** Returns, for each element, the mean of the weighted values with the majority's sign. */
function electSigns(
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

/** Keeps each value with probability `density` and divides it by `density`, which preserves the mean. */
function dropRandomly(values: Float32Array, density: number, uniform: Float32Array): Float32Array {
  return values.map((value, j) => ((uniform[j] as number) < density ? value / density : 0));
}

/** Keeps the fraction `density` of values with the largest magnitude; on ties the first ones. */
function keepLargest(values: Float32Array, density: number): Float32Array {
  const count = Math.floor(density * values.length);
  if (count === 0) return new Float32Array(values.length);
  const threshold = findNthMagnitude(values, count);
  let above = 0;
  for (const value of values) if (Math.abs(value) > threshold) above++;
  let atThreshold = count - above;
  return values.map((value) => {
    const magnitude = Math.abs(value);
    return magnitude > threshold || (magnitude === threshold && atThreshold-- > 0) ? value : 0;
  });
}

/** Returns the n-th largest magnitude by counting digits: the bits of positive floats sort like their values. */
function findNthMagnitude(values: Float32Array, n: number): number {
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
