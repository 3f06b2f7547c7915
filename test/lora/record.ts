/**
 * A plain record of the expected state of a model's layers: base weights and differences as arrays, active
 * adapters, merged ones, and tensors that require a gradient. Outputs are f64 sums, computed without the library.
 */

export interface Kind {
  name: string;
  /** Shape of the weight. */
  shape: readonly number[];
  /** Shape of the input; for a convolution without its batch dimension of 1. */
  input: readonly number[];
  /** Slices of a merged linear layer. */
  enableLora?: readonly boolean[];
  type: "linear" | "embedding" | "conv";
}

export const kinds: Kind[] = [
  { name: "linear", type: "linear", shape: [4, 5], input: [3, 5] },
  { name: "embedding", type: "embedding", shape: [6, 3], input: [5] },
  { name: "merged", type: "linear", shape: [6, 4], input: [2, 4], enableLora: [true, false, true] },
  { name: "conv1d", type: "conv", shape: [3, 2, 2], input: [2, 4] },
  { name: "conv2d", type: "conv", shape: [3, 2, 2, 2], input: [2, 3, 3] },
  { name: "conv3d", type: "conv", shape: [2, 2, 1, 2, 2], input: [2, 2, 3, 3] },
];

/** The values of an adapter, without its state of use. */
export interface Parts {
  /** The change of the weight, in the weight's shape. */
  delta: Float64Array;
  /** With DoRA, the resulting norm of each output. */
  magnitude?: Float32Array | undefined;
}

export interface RecordedAdapter extends Parts {
  trainable: boolean;
}

export interface RecordedLayer {
  weight: Float32Array;
  bias: Float32Array | null;
  weightGrad: boolean;
  biasGrad: boolean;
  adapters: Map<string, RecordedAdapter>;
  active: { name: string; weight: number }[];
  merged: boolean;
  mergeWeights: boolean;
  /** A plain layer, one constructed by hand with an adapter or without (r = 0), or one created by `inject`. */
  as: "plain" | "hand" | "bare" | "injected";
}

export type Recorded = Map<string, RecordedLayer>;

const count = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** Returns scaling · B·A in the weight's shape. */
export function deltaOf(
  kind: Kind,
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  shapes: { a: readonly number[]; b: readonly number[] },
  scaling: number,
): Float64Array {
  const [ranks, r] = [shapes.a[0] as number, shapes.b[1] as number];
  const columns = count(shapes.a) / ranks;
  const rows = shapes.b[0] as number;
  const product = (fromA: number, fromB: number, height: number): Float64Array => {
    const out = new Float64Array(height * columns);
    for (let row = 0; row < height; row++)
      for (let i = 0; i < r; i++)
        for (let column = 0; column < columns; column++)
          out[row * columns + column] =
            (out[row * columns + column] as number) +
            scaling * (b[(fromB + row) * r + i] as number) * (a[(fromA + i) * columns + column] as number);
    return out;
  };
  if (kind.enableLora !== undefined && ranks !== r) {
    const width = (kind.shape[0] as number) / kind.enableLora.length;
    const out = new Float64Array(count(kind.shape));
    let enabled = 0;
    for (const [slice, on] of kind.enableLora.entries()) {
      if (!on) continue;
      out.set(product(enabled * r, enabled * width, width), slice * width * columns);
      enabled++;
    }
    return out;
  }
  const whole = product(0, 0, rows);
  if (kind.type !== "embedding") return whole;
  const out = new Float64Array(whole.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      out[column * rows + row] = whole[row * columns + column] as number;
  return out;
}

/** Returns the output index of each element of the weight. */
function outputsOf({ type, shape }: Kind): (index: number) => number {
  if (type === "embedding") return (index) => index % (shape[1] as number);
  const each = count(shape.slice(1));
  return (index) => Math.floor(index / each);
}

/** Returns ‖W‖ of each output. */
export function normsOf(kind: Kind, weight: ArrayLike<number>): Float64Array {
  const out = outputsOf(kind);
  const squares = new Float64Array((kind.type === "embedding" ? kind.shape[1] : kind.shape[0]) as number);
  for (let i = 0; i < weight.length; i++)
    squares[out(i)] = (squares[out(i)] as number) + (weight[i] as number) ** 2;
  return squares.map(Math.sqrt);
}

/**
 * Returns the weight with the active adapters applied in turn, and the size of its terms. DoRA multiplies each
 * output of the sum so far by m / ‖W + s·ΔW‖, with the base's weight W (Liu et al. 2024, section 4.1).
 */
export function effective(
  kind: Kind,
  layer: RecordedLayer,
  active = layer.active,
): { weight: Float64Array; size: number } {
  const weight = Float64Array.from(layer.weight);
  const out = outputsOf(kind);
  let size = weight.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  for (const { name, weight: share } of active) {
    const { delta, magnitude } = layer.adapters.get(name) as RecordedAdapter;
    for (const [i, value] of delta.entries()) weight[i] = (weight[i] as number) + share * value;
    size += Math.abs(share) * delta.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    if (magnitude === undefined) continue;
    const alone = layer.weight.reduce(
      (sum, value, i) => sum.fill(value + share * (delta[i] as number), i, i + 1),
      new Float64Array(delta.length),
    );
    const factors = normsOf(kind, alone).map((norm, i) => (magnitude[i] as number) / norm);
    for (const [i, value] of weight.entries()) weight[i] = value * (factors[out(i)] as number);
    size *= factors.reduce((m, v) => Math.max(m, Math.abs(v)), 1);
  }
  return { weight, size };
}

/** Returns the output of a layer with this weight and bias for `input`. */
export function output(
  kind: Kind,
  weight: ArrayLike<number>,
  bias: ArrayLike<number> | null,
  input: ArrayLike<number>,
): Float64Array {
  if (kind.type === "embedding") {
    const d = kind.shape[1] as number;
    return Float64Array.from({ length: input.length * d }, (_, i) => {
      return weight[(input[Math.floor(i / d)] as number) * d + (i % d)] as number;
    });
  }
  const [outs, ins, ...kernel] = kind.shape as [number, number, ...number[]];
  if (kind.type === "linear") {
    const rows = input.length / ins;
    return Float64Array.from({ length: rows * outs }, (_, i) => {
      const [row, out] = [Math.floor(i / outs), i % outs];
      let sum = bias?.[out] ?? 0;
      for (let k = 0; k < ins; k++)
        sum += (weight[out * ins + k] as number) * (input[row * ins + k] as number);
      return sum;
    });
  }
  const sizes = kind.input.slice(1);
  const places = sizes.map((size, d) => size - (kernel[d] as number) + 1);
  const at = (index: number, shape: readonly number[]): number[] => {
    const place: number[] = [];
    let rest = index;
    for (let d = shape.length - 1; d >= 0; d--) {
      place[d] = rest % (shape[d] as number);
      rest = Math.floor(rest / (shape[d] as number));
    }
    return place;
  };
  const flat = (place: readonly number[], shape: readonly number[]): number =>
    place.reduce((n, p, d) => n * (shape[d] as number) + p, 0);
  const [taps, positions] = [count(kernel), count(places)];
  return Float64Array.from({ length: outs * positions }, (_, i) => {
    const [out, position] = [Math.floor(i / positions), at(i % positions, places)];
    let sum = bias?.[out] ?? 0;
    for (let c = 0; c < ins; c++) {
      for (let tap = 0; tap < taps; tap++) {
        const offset = at(tap, kernel);
        const place = position.map((p, d) => p + (offset[d] as number));
        sum +=
          (weight[(out * ins + c) * taps + tap] as number) *
          (input[c * count(sizes) + flat(place, sizes)] as number);
      }
    }
    return sum;
  });
}

/** Activates exactly these adapters; a layer stays merged if its active adapters do not change. */
export function choose(layer: RecordedLayer, active: readonly { name: string; weight: number }[]): void {
  const own = active.filter(({ name }) => layer.adapters.has(name));
  if (JSON.stringify(own) === JSON.stringify(layer.active)) return;
  layer.active = own;
  layer.merged = false;
}

/** Drops an adapter; a layer without adapters is a plain layer again. */
export function drop(layer: RecordedLayer, name: string): void {
  if (!layer.adapters.delete(name)) return;
  if (layer.active.some((one) => one.name === name)) layer.merged = false;
  layer.active = layer.active.filter((one) => one.name !== name);
  takeOff(layer);
}

export function takeOff(layer: RecordedLayer): void {
  if (layer.adapters.size > 0) return;
  layer.merged = false;
  if (layer.as !== "bare") Object.assign(layer, { as: "plain", mergeWeights: false });
}

/** Adds an adapter, which is inactive at first. */
export function add(layer: RecordedLayer, name: string, adapter: RecordedAdapter): void {
  layer.adapters.set(name, adapter);
  layer.weightGrad = false;
  if (layer.as === "plain") layer.as = "injected";
}
