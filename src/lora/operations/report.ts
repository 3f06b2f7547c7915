/** Reports the adapters of a model, layer by layer. */
import { checkModule } from "../../nn/children.js";
import type { Module } from "../../nn/module.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Adapter } from "../layers/layer.js";
import { listLoraLayers } from "../adapter/registry.js";
import { deriveBlocks } from "./factors.js";

/** One adapter of one layer. */
export interface LayerReport {
  /** The path of the layer in the model. */
  path: string;
  /** The class of the layer. */
  kind: string;
  /** The name of the adapter. */
  adapter: string;
  /** Its rank in this layer. */
  rank: number;
  /** Its alpha in this layer. */
  loraAlpha: number;
  /** The factor of B·A. */
  scaling: number;
  /** Frobenius norm of A. */
  normA: number;
  /** Frobenius norm of B. */
  normB: number;
  /** Frobenius norm of ΔW = scaling·B·A. */
  normDelta: number;
  /** The adapter's weight in the sum: 1 by default, 0 if it is not active. */
  weight: number;
  /** Whether the adapter is currently merged into the layer. */
  merged: boolean;
  /** Whether A or B of the adapter in this layer requires a gradient. */
  trainable: boolean;
}

/**
 * Returns rank, scaling and norms for each adapter of each layer. ΔW is not computed: ‖B·A‖² = Σ (BᵀB ∘ AAᵀ), which uses
 * matrices of the rank's size.
 */
export async function report(model: Module): Promise<LayerReport[]> {
  checkModule("report", "model", model);
  const rows = [...listLoraLayers(model)].flatMap(([path, layer]) =>
    [...layer.adapters].map(([name, adapter]) => ({ path, layer, name, adapter })),
  );
  const [first, ...rest] = noGrad(() => scope(() => rows.map(({ adapter }) => computeSquares(adapter))));
  if (first === undefined) return [];
  const all = noGrad(() => (rest.length === 0 ? first : first.concat(rest, 0)));
  const values = await all.data();
  for (const tensor of new Set([first, ...rest, all])) tensor.dispose();
  return rows.map(({ path, layer, name, adapter }, i) => {
    const computeNorm = (j: number): number => Math.sqrt(Math.max(0, values[3 * i + j] as number));
    return {
      path,
      kind: layer.constructor.name,
      adapter: name,
      rank: adapter.r,
      loraAlpha: adapter.loraAlpha,
      scaling: adapter.scaling,
      normA: computeNorm(0),
      normB: computeNorm(1),
      normDelta: Math.abs(adapter.scaling) * computeNorm(2),
      weight: layer.active.find((active) => active.name === name)?.weight ?? 0,
      merged: layer.merged && layer.active.some((active) => active.name === name),
      trainable: adapter.loraA.requiresGrad || adapter.loraB.requiresGrad,
    };
  });
}

/** Returns ‖A‖², ‖B‖² and ‖BA‖², on the device. */
function computeSquares({ loraA, loraB }: Adapter): Tensor {
  const { blocks, blockRank, rows } = deriveBlocks(loraA, loraB);
  const a = loraA.reshape(blocks * blockRank, -1);
  const b = loraB.reshape(rows, blockRank);
  const products = Array.from({ length: blocks }, (_, j) => {
    const aj = a.slice(0, j * blockRank, (j + 1) * blockRank);
    const bj = b.slice(0, (j * rows) / blocks, ((j + 1) * rows) / blocks);
    return aj
      .matmul(aj, { transB: true })
      .mul(bj.matmul(bj, { transA: true }))
      .sum()
      .reshape(1);
  });
  const product = products.reduce((sum, term) => sum.add(term));
  return a
    .mul(a)
    .sum()
    .reshape(1)
    .concat([b.mul(b).sum().reshape(1), product], 0);
}
