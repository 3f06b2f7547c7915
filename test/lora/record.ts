/**
 * A plain record of what should hold of a model's layers: base weights and differences as arrays, which adapters count,
 * what is merged, what asks for a gradient. Outputs are sums in f64 that know nothing of the library.
 */

export interface Kind {
  name: string;
  /** Of the weight. */
  shape: readonly number[];
  /** Of the input, its batch of one apart where it is a convolution's. */
  input: readonly number[];
  /** Of slices, for a merged linear layer. */
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

/** What an adapter is, apart from how it is used. */
export interface Parts {
  /** What it adds to the weight, in the weight's shape. */
  delta: Float64Array;
  /** What the norm of each output becomes then, with DoRA. */
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
  /** A plain layer, one made by hand with an adapter or without (r = 0), or one that `inject` put there. */
  as: "plain" | "hand" | "bare" | "injected";
}

export type Recorded = Map<string, RecordedLayer>;

const count = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** scaling · B·A in the weight's shape. */
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

/** Which output each element of the weight belongs to. */
function outputsOf({ type, shape }: Kind): (index: number) => number {
  if (type === "embedding") return (index) => index % (shape[1] as number);
  const each = count(shape.slice(1));
  return (index) => Math.floor(index / each);
}

/** ‖W‖ of each output. */
export function normsOf(kind: Kind, weight: ArrayLike<number>): Float64Array {
  const out = outputsOf(kind);
  const squares = new Float64Array((kind.type === "embedding" ? kind.shape[1] : kind.shape[0]) as number);
  for (let i = 0; i < weight.length; i++)
    squares[out(i)] = (squares[out(i)] as number) + (weight[i] as number) ** 2;
  return squares.map(Math.sqrt);
}

/**
 * The weight with what counts in it, one adapter after another, and how large its terms are. DoRA gives each output of
 * the sum so far the factor m / ‖W + s·ΔW‖, of the base's own weight (Liu et al. 2024, section 4.1).
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

/** What a layer of this weight and bias gives of `input`. */
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

/** Lets exactly these count: what is merged and does not change stays so. */
export function choose(layer: RecordedLayer, active: readonly { name: string; weight: number }[]): void {
  const own = active.filter(({ name }) => layer.adapters.has(name));
  if (JSON.stringify(own) === JSON.stringify(layer.active)) return;
  layer.active = own;
  layer.merged = false;
}

/** Drops an adapter; a layer without any is what it was made of. */
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

/** Adds an adapter, which counts for nothing yet. */
export function add(layer: RecordedLayer, name: string, adapter: RecordedAdapter): void {
  layer.adapters.set(name, adapter);
  layer.weightGrad = false;
  if (layer.as === "plain") layer.as = "injected";
}
