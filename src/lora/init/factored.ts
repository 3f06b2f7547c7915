/** Initialisations with factors of the weight, or with orthogonal factors. */
import { LowrankError } from "../../errors.js";
import { approximateSvd, computeQr, computeSvd, type Matrix } from "../../tensor/linalg.js";
import type { Linear } from "../../nn/linear.js";
import { drawStream, drawNormalValues } from "../../tensor/random.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** A [r, in] and B [out, r] on the host. */
export interface Factors {
  loraA: Float32Array;
  loraB: Float32Array;
}

/*
 * Layers are initialised concurrently. Each function draws its random numbers before its first await, so the draws follow
 * the order of layers and a seed always gives the same adapter.
 */

/** A layer to be initialised, with rank and scaling. */
export interface StartOf {
  path: string;
  layer: Linear;
  weight: Tensor;
  r: number;
  scaling: number;
}

/**
 * Computes factors with s·B·A equal to the part of W with the `r` largest singular values: A = √(S/s)·Vᵀ,
 * B = U·√(S/s). Source: Meng et al. 2024; PEFT's pissa_init.
 */
export async function computePissa(start: StartOf, rounds?: number): Promise<Factors> {
  const { path, layer, r, scaling } = start;
  checkRank("pissa", start);
  if (!(scaling > 0)) throw createRefusal(ADAPTER_REFUSALS.pissaScaling, "inject", `${path}, ${scaling}`);
  const subspace = rounds === undefined ? undefined : { iterations: rounds, draw: drawStream() };
  const stored = await readMatrix(start.weight);
  const { u, s, vt } = await namePathInErrors(
    path,
    subspace === undefined ? computeSvd(stored, r) : approximateSvd(stored, r, subspace),
  );
  const roots = s.map((value) => Math.sqrt(value / scaling));
  const left = scaleColumns(u, stored.rows, r, (_, k) => roots[k] as number);
  const right = scaleColumns(vt, r, stored.columns, (k) => roots[k] as number);
  // For a weight stored as [in, out], the left factor belongs to the inputs.
  return layer.fanInFanOut
    ? { loraA: transpose(left, stored.rows, r), loraB: transpose(right, r, stored.columns) }
    : { loraA: right, loraB: left };
}

/** Computes B·A = Q·R of W, truncated to rank `r`. Source: Büyükakyüz 2024; PEFT's olora_init. */
export async function computeOlora(start: StartOf): Promise<Factors> {
  const { path, layer, r } = start;
  checkRank("olora", start);
  const weight = await readMatrix(start.weight, layer.fanInFanOut);
  const factors = await namePathInErrors(path, computeQr(weight, r));
  return { loraA: Float32Array.from(factors.r), loraB: Float32Array.from(factors.q) };
}

/**
 * Draws A and B from the even and the odd rows of one orthogonal matrix, so that B·A is zero up to rounding. Source:
 * PEFT's orthogonal_init.
 */
export async function drawOrthogonal({ path, layer, r }: StartOf): Promise<Factors> {
  if (r % 2 !== 0) throw createRefusal(ADAPTER_REFUSALS.orthogonalOdd, "inject", `${path}, ${r}`);
  const { inFeatures, outFeatures } = layer;
  const half = r / 2;
  const draws = {
    q: drawNormalValues(r * r),
    a: drawNormalValues(inFeatures * half),
    b: drawNormalValues(half * outFeatures),
  };
  const { q } = await computeQr({ values: draws.q, rows: r, columns: r }, r);
  const [loraA, loraB] = [new Float32Array(r * inFeatures), new Float32Array(outFeatures * r)];
  for (let k = 0; k < r; k++) {
    for (let i = 0; i < inFeatures; i++) {
      let sum = 0;
      for (let h = 0; h < half; h++) sum += (draws.a[i * half + h] as number) * (q[2 * h * r + k] as number);
      loraA[k * inFeatures + i] = sum / 10;
    }
    for (let o = 0; o < outFeatures; o++) {
      let sum = 0;
      for (let h = 0; h < half; h++)
        sum += (draws.b[h * outFeatures + o] as number) * (q[(2 * h + 1) * r + k] as number);
      loraB[o * r + k] = sum / 10;
    }
  }
  return { loraA, loraB };
}

function checkRank(init: string, { path, layer, r }: StartOf): void {
  const most = Math.min(layer.inFeatures, layer.outFeatures);
  if (r > most)
    throw createRefusal(ADAPTER_REFUSALS.startRank, "inject", `${init} at ${path}: ${r}, of at most ${most}`);
}

/** Returns a two-dimensional weight in f32 on the host, optionally transposed. */
async function readMatrix(weight: Tensor, transposed = false): Promise<Matrix> {
  const wide = noGrad(() =>
    scope(() => {
      const floats = weight.to("f32");
      return transposed ? floats.transpose() : floats;
    }),
  );
  const [rows, columns] = wide.shape as [number, number];
  const values = (await wide.data()) as Float32Array;
  if (wide !== weight) wide.dispose();
  return { values, rows, columns };
}

/** Adds the path of the layer to an error of a factorisation. */
async function namePathInErrors<T>(path: string, factors: Promise<T>): Promise<T> {
  try {
    return await factors;
  } catch (cause) {
    if (!(cause instanceof LowrankError)) throw cause;
    throw new LowrankError(cause.code, `initLoraWeights: the weight of ${path}: ${cause.message}`, { cause });
  }
}

function scaleColumns(
  values: Float64Array,
  rows: number,
  columns: number,
  by: (row: number, column: number) => number,
): Float32Array {
  return Float32Array.from(values, (value, i) => value * by(Math.floor(i / columns) % rows, i % columns));
}

function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j] as number;
  return out;
}
