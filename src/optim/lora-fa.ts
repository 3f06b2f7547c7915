import { tensor } from "../tensor/create.js";
import { computeSvd } from "../tensor/linalg.js";
import { checkModule } from "../nn/children.js";
import { Embedding } from "../nn/embedding.js";
import type { Module } from "../nn/module.js";
import { keep, noGrad, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { AdamW, type AdamWOptions } from "./adamw.js";
import { clipGradNorm } from "./clip.js";
import { ADAPTER_REFUSALS } from "../refusals/adapters.js";
import { createRefusal } from "../refusals/refusal.js";

/** The A of a low-rank layer: the module's property by adapter name. */
interface Pair {
  loraA: Tensor;
  loraB: Tensor;
  scaling: number;
}

/** B's gradient, and the matrix that projects it. */
interface Turned {
  loraB: Tensor;
  /** (A·Aᵀ)⁻¹ / s² [r, r]. */
  projection: Tensor;
}

/** Added to A·Aᵀ before it is inverted, as in PEFT. */
const RIDGE = 1e-8;

/**
 * LoRA-FA (Zhang et al. 2023): A stays fixed, so its input need not be kept, and B's gradient is multiplied by (A·Aᵀ)⁻¹ / s², so
 * that the change of s·B·A approximates the weight's own gradient best. All other parameters are trained by AdamW. Embeddings train
 * both factors, since their A starts at zero. Source: PEFT's LoraFAOptimizer.
 */
export class LoraFA extends AdamW {
  readonly #pairs: readonly Pair[];
  #projections: readonly Turned[];

  private constructor(
    params: Tensor[],
    pairs: readonly Pair[],
    projections: readonly Turned[],
    options: Partial<AdamWOptions>,
  ) {
    super(params, options);
    this.#pairs = pairs;
    this.#projections = projections;
  }

  /**
   * Freezes A of every trained low-rank layer of `model`, and creates the optimizer for the other parameters. Throws
   * `ERR_OPTION` if nothing is trained, and for layers with outputs in groups.
   */
  static async of(model: Module, options: Partial<AdamWOptions> = {}): Promise<LoraFA> {
    const pairs = [...listPairs(checkModule("LoraFA.of", "model", model))];
    for (const [path, { loraA, loraB }] of pairs) {
      if (loraA.shape[0] === loraB.shape[1]) continue;
      throw createRefusal(ADAPTER_REFUSALS.fixedA, "LoraFA", path);
    }
    const projections = await Promise.all(pairs.map(([, pair]) => turn(pair)));
    for (const [, { loraA }] of pairs) loraA.requiresGrad = false;
    const params = [...model.parameters()].filter((parameter) => parameter.requiresGrad);
    return new LoraFA(
      params,
      pairs.map(([, pair]) => pair),
      projections,
      options,
    );
  }

  /** As `Optimizer.load`; gradients are projected by the A after loading. */
  override async load(path: string): Promise<void> {
    await super.load(path);
    await this.renew();
  }

  /** @internal */
  override async renew(): Promise<void> {
    const before = this.#projections;
    this.#projections = await Promise.all(this.#pairs.map(turn));
    for (const { projection } of before) projection.dispose();
  }

  /** @internal Gradients are clipped to `max` before they are projected, in place. */
  protected override update(max: number | undefined, latches: boolean): Tensor {
    const params = this.groups.flatMap((group) => group.params);
    const norm = max === undefined ? undefined : clipGradNorm(params, max);
    noGrad(() =>
      scope(() => {
        for (const { loraB, projection } of this.#projections) {
          const { grad } = loraB;
          if (grad === null) continue;
          const r = loraB.shape[1] as number;
          grad.copy(grad.reshape(-1, r).matmul(projection).reshape(loraB.shape));
        }
      }),
    );
    const after = super.update(undefined, latches);
    if (norm === undefined) return after;
    after.dispose();
    return norm;
  }

  /** Frees the state, and the projection matrices. The parameters stay unchanged. */
  override dispose(): void {
    super.dispose();
    for (const { projection } of this.#projections) projection.dispose();
  }
}

function* listPairs(model: Module): IterableIterator<[path: string, pair: Pair]> {
  for (const [path, module] of model.namedModules()) {
    const { adapters } = module as { adapters?: ReadonlyMap<string, Pair> | undefined };
    if (!(adapters instanceof Map) || module instanceof Embedding) continue;
    for (const pair of adapters.values() as Iterable<Pair>) if (pair.loraB.requiresGrad) yield [path, pair];
  }
}

async function turn({ loraA, loraB, scaling }: Pair): Promise<Turned> {
  const r = loraA.shape[0] as number;
  const gram = noGrad(() =>
    scope(() => {
      const flat = loraA.reshape(r, -1);
      return flat.matmul(flat, { transB: true });
    }),
  );
  const values = (await gram.data()) as Float32Array;
  gram.dispose();
  for (let i = 0; i < r; i++) values[i * r + i] = (values[i * r + i] as number) + RIDGE;
  const { u, s, vt } = await computeSvd({ values, rows: r, columns: r }, r);
  const inverse = new Float32Array(r * r);
  for (let i = 0; i < r; i++) {
    for (let j = 0; j < r; j++) {
      let sum = 0;
      for (let k = 0; k < r; k++)
        sum += ((vt[k * r + i] as number) * (u[j * r + k] as number)) / (s[k] as number);
      inverse[i * r + j] = sum / scaling ** 2;
    }
  }
  const projection = tensor(inverse, { shape: [r, r], device: loraB.device });
  keep(projection);
  return { loraB, projection };
}
