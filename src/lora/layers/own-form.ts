/**
 * Converts plain adapters, as PEFT's files hold them, to the compact form of two layers: a merged linear layer stores one
 * block of B per enabled slice, and a grouped convolution one A shared by all groups.
 */
import { tensor } from "../../tensor/create.js";
import { noGrad } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { listParts, type Adapter } from "./adapter.js";
import type { AnyLoRALayer } from "./any-layer.js";
import { MergedLinear } from "./merged-linear.js";

/** Whether an adapter has the compact form of its layer rather than PEFT's. */
export function isOwnForm(layer: AnyLoRALayer, adapter: Adapter): boolean {
  return listParts(adapter).some(
    ([part, { shape }]) => shape.join() !== layer.computeStoredShape(part, adapter.r).join(),
  );
}

/** Factors of one layer. */
export interface Factors {
  loraA: Tensor;
  loraB: Tensor;
}

/**
 * Converts plain factors to the form and rank of `adapter` in `layer`, padding a smaller rank with zeros. Returns
 * undefined if that is impossible: the factors mix slices or groups that the form separates, or have a larger rank. The
 * result is on the CPU; the caller owns it.
 */
export async function convertToOwnForm(
  layer: AnyLoRALayer,
  adapter: Adapter,
  plain: Factors,
): Promise<Factors | undefined> {
  const [a, b] = [await readValues(plain.loraA), await readValues(plain.loraB)];
  if (layer instanceof MergedLinear) return convertToSlices(layer, adapter, plain, a, b);
  return convertToGroups(adapter, plain, a, b);
}

async function readValues(given: Tensor): Promise<Float32Array> {
  const wide = noGrad(() => given.to("f32"));
  const data = (await wide.data()) as Float32Array;
  if (wide !== given) wide.dispose();
  return data;
}

/** Converts A [r·E, in] and block-diagonal B [out, r·E] to B [width·E, r]. */
function convertToSlices(
  layer: MergedLinear,
  adapter: Adapter,
  { loraA, loraB }: Factors,
  a: Float32Array,
  b: Float32Array,
): Factors | undefined {
  const { slices, width, inFeatures } = layer;
  const enabled = slices.length;
  const rank = loraA.shape[0] as number;
  const rowsOfSlice = rank / enabled;
  if (!Number.isInteger(rowsOfSlice) || rowsOfSlice > adapter.r || loraB.shape[0] !== layer.outFeatures)
    return undefined;
  const blocks = extractBlocks(layer, b, rank);
  if (blocks === undefined) return undefined;
  const [outA, outB] = [
    new Float32Array(adapter.r * enabled * inFeatures),
    new Float32Array(width * enabled * adapter.r),
  ];
  for (let slice = 0; slice < enabled; slice++)
    outA.set(
      a.subarray(slice * rowsOfSlice * inFeatures, (slice + 1) * rowsOfSlice * inFeatures),
      slice * adapter.r * inFeatures,
    );
  for (let row = 0; row < width * enabled; row++)
    outB.set(blocks.subarray(row * rowsOfSlice, (row + 1) * rowsOfSlice), row * adapter.r);
  return {
    loraA: tensor(outA, { shape: [adapter.r * enabled, inFeatures], device: "cpu" }),
    loraB: tensor(outB, { shape: [width * enabled, adapter.r], device: "cpu" }),
  };
}

/** Returns the diagonal blocks [width·E, r] of B [out, r·E]; undefined if anything else in B is not zero. */
export function extractBlocks(
  { slices, width }: MergedLinear,
  b: Float32Array,
  rank: number,
): Float32Array | undefined {
  const r = rank / slices.length;
  const out = new Float32Array(width * slices.length * r);
  for (const [i, value] of b.entries()) {
    const [row, column] = [Math.floor(i / rank), i % rank];
    const slice = slices.indexOf(Math.floor(row / width));
    if (slice >= 0 && slice === Math.floor(column / r))
      out[(slice * width + (row % width)) * r + (column % r)] = value;
    else if (value !== 0) return undefined;
  }
  return out;
}

/** Converts A [r·g, in, …] to the shared A [r, in / g, …]; undefined unless its g blocks are equal and block j covers only group j. */
function convertToGroups(
  adapter: Adapter,
  { loraA, loraB }: Factors,
  a: Float32Array,
  b: Float32Array,
): Factors | undefined {
  const [, perGroup = 1, ...kernel] = adapter.loraA.shape;
  const [rank = 1, channels = 1] = loraA.shape;
  const groups = channels / perGroup;
  const rowsOfGroup = rank / groups;
  if (
    !Number.isInteger(groups) ||
    !Number.isInteger(rowsOfGroup) ||
    rowsOfGroup > adapter.r ||
    loraB.shape[1] !== rowsOfGroup
  )
    return undefined;
  const taps = kernel.reduce((n, k) => n * k, 1);
  const outA = new Float32Array(adapter.loraA.size);
  const line = perGroup * taps;
  for (let row = 0; row < rank; row++) {
    const [group, r] = [Math.floor(row / rowsOfGroup), row % rowsOfGroup];
    for (let c = 0; c < channels * taps; c++) {
      const value = a[row * channels * taps + c] as number;
      const inside = Math.floor(c / line) === group;
      if (!inside && value !== 0) return undefined;
      if (!inside) continue;
      const to = r * line + (c % line);
      if (group === 0) outA[to] = value;
      else if (outA[to] !== value) return undefined;
    }
  }
  const outB = new Float32Array(adapter.loraB.size);
  for (let row = 0; row < b.length / rowsOfGroup; row++)
    outB.set(b.subarray(row * rowsOfGroup, (row + 1) * rowsOfGroup), row * adapter.r);
  return {
    loraA: tensor(outA, { shape: adapter.loraA.shape, device: "cpu" }),
    loraB: tensor(outB, { shape: adapter.loraB.shape, device: "cpu" }),
  };
}
