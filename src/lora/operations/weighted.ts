/** Adds a weighted combination of adapters as a new adapter. */
import {
  isPlain,
  checkKnownOptions,
  checkProbability,
  refuse as wrong,
  checkWhole,
} from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { checkModule } from "../../nn/children.js";
import type { Module } from "../../nn/module.js";
import { drawUniformValues, runWithRandom } from "../../tensor/random.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { tensor } from "../../tensor/create.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { setTrainable } from "../adapter/active.js";
import { change } from "../adapter/change.js";
import { checkAdapterName } from "../options/adapter-name.js";
import { setTemplates, findTemplatesOfAll } from "../adapter/chat-templates.js";
import { injectNow } from "../inject/inject.js";
import type { Adapter, AnyLoRALayer } from "../layers/layer.js";
import { findAdapter, checkFree, listLoraLayers, type ModelAdapter } from "../adapter/registry.js";
import { listSavedTensors } from "../adapter/replacement.js";
import { addStart } from "../layers/shares.js";
import type { Targetable } from "../options/targets.js";
import {
  deriveBlocks,
  concatenateFactors,
  approximate,
  multiplyFactors,
  reduceRank,
  type Factors,
  type WeightedFactors,
} from "./factors.js";
import { matchExactly, describeRanks } from "../options/exact.js";
import {
  combineValues,
  type Arithmetic,
  type ArithmeticOptions,
  type MajoritySign,
} from "./task-arithmetic.js";
import { ADAPTER_REFUSALS } from "../../refusals/adapters.js";
import { createRefusal } from "../../refusals/refusal.js";

/** How adapters are combined: as sums, or element by element in A and B, or (`_svd`) in their product. See `addWeightedAdapter`. */
export type Combination =
  | "linear"
  | "cat"
  | "svd"
  | "ties"
  | "ties_svd"
  | "dare_linear"
  | "dare_linear_svd"
  | "dare_ties"
  | "dare_ties_svd"
  | "magnitude_prune"
  | "magnitude_prune_svd";

const COMBINATIONS: readonly Combination[] = [
  "linear",
  "cat",
  "svd",
  "ties",
  "ties_svd",
  "dare_linear",
  "dare_linear_svd",
  "dare_ties",
  "dare_ties_svd",
  "magnitude_prune",
  "magnitude_prune_svd",
];

/** Options of `addWeightedAdapter`. */
export interface WeightedAdapterOptions {
  /** How the adapters are combined. Default: `linear`. */
  combination?: Combination | undefined;
  /** The rank of the result for the `svd` forms; `linear` and `cat` are truncated to it if given. */
  rank?: number | undefined;
  /** The fraction of values that ties, dare and magnitude_prune keep, from 0 to 1. Required for these. */
  density?: number | undefined;
  /** How ties elects a sign. Default: `total`. */
  majoritySign?: MajoritySign | undefined;
  /** The seed of dare's masks. Default: 0. */
  seed?: number | undefined;
}

/** An input of the combination. */
interface Input extends ModelAdapter {
  name: string;
  weight: number;
}

/**
 * Adds the adapter `name` as a weighted combination of others. It is not active until `setAdapter`.
 *
 * - `linear` and `cat`: ΔW = Σ weight·ΔWᵢ exactly, by concatenating the factors, so the ranks add up. `linear` requires
 *   equal ranks. With `rank` the sum is truncated as by `svd`.
 * - `svd`: the best approximation of that sum with rank `rank`, by default the largest rank of the inputs.
 * - `ties`, `dare_linear`, `dare_ties`, `magnitude_prune`: as in PEFT, A and B are combined separately, each scaled by
 *   √weight; the rank stays the same. Their `_svd` forms combine ΔWᵢ and truncate the result to `rank`.
 *
 * Throws `ERR_ADAPTER_EXISTS`, `ERR_UNKNOWN_ADAPTER`, `ERR_OPTION`; nothing is changed then. Source: PEFT's
 * add_weighted_adapter, without the cross terms of its `linear`.
 */
export async function addWeightedAdapter(
  model: Targetable,
  name: string,
  weights: Readonly<Record<string, number>>,
  options: WeightedAdapterOptions = {},
): Promise<void> {
  checkModule("addWeightedAdapter", "model", model);
  const known = ["combination", "rank", "density", "majoritySign", "seed"] as const;
  const { seed } = checkKnownOptions("addWeightedAdapter", options, known);
  if (seed !== undefined) checkWhole("addWeightedAdapter", "seed", seed);
  if (options.density !== undefined) checkProbability("addWeightedAdapter", "density", options.density);
  const inputs = checkInputs(model, name, weights, options);
  const alone = inputs.length === 1 && options.rank === undefined;
  const combination = alone ? "linear" : (options.combination ?? "linear");
  const sums = await runWithRandom(options.seed ?? 0, () =>
    noGrad(() => scope(() => computeSums(model, inputs, { ...options, combination }))),
  );
  // Another call may have added an adapter of this name while this one read values.
  checkFree(model, name, "addWeightedAdapter");
  change(model, () => {
    const options = { ...describe(model, inputs, sums), name, active: false };
    runWithRandom(0, () => injectNow(model, options, { frozen: false }));
    noGrad(() => scope(() => fill(model, name, inputs, sums)));
    setTemplates(model, name, findTemplatesOfAll(model, Object.keys(weights)));
    setTrainable(model, name, false);
  });
}

function refuse(message: string): never {
  throw new LowrankError("ERR_OPTION", `addWeightedAdapter: ${message}`);
}

function checkInputs(
  model: Module,
  name: string,
  weights: Readonly<Record<string, number>>,
  { combination = "linear", rank, density, majoritySign }: WeightedAdapterOptions,
): Input[] {
  checkAdapterName("addWeightedAdapter", "name", name);
  if (!isPlain(weights)) wrong("addWeightedAdapter", "weights", "weights by name", weights);
  checkFree(model, name, "addWeightedAdapter");
  const inputs = Object.entries(weights).map(([adapter, weight]) => ({
    ...findAdapter(model, adapter),
    name: adapter,
    weight,
  }));
  if (inputs.length === 0) refuse("there are no adapters to combine");
  for (const { name: adapter, weight } of inputs)
    if (!Number.isFinite(weight)) refuse(`the weight of "${adapter}" must be a number, got ${weight}`);
  if (!COMBINATIONS.includes(combination))
    refuse(`combination must be one of ${COMBINATIONS.join(", ")}, got "${String(combination)}"`);
  if (rank !== undefined && !(Number.isInteger(rank) && rank >= 1))
    refuse(`rank must be a whole number of at least 1, got ${rank}`);
  if (majoritySign !== undefined && majoritySign !== "total" && majoritySign !== "frequency")
    refuse(`majoritySign must be total or frequency, got "${String(majoritySign)}"`);
  const sparse = /^(ties|dare|magnitude)/.test(combination);
  if (sparse && inputs.length > 1 && !(density !== undefined && density >= 0 && density <= 1))
    refuse(`${combination} keeps a fraction of the values: density must be from 0 to 1, got ${density}`);
  if (combination.startsWith("dare") && density === 0)
    refuse(`${combination} divides by density, which is 0`);
  for (const kind of ["modules", "biases"] as const) {
    const owners = new Map<string, string>();
    for (const input of inputs) {
      for (const path of input[kind].keys()) {
        const other = owners.get(path);
        if (other !== undefined)
          throw createRefusal(
            ADAPTER_REFUSALS.addedCopies,
            "addWeightedAdapter",
            `"${other}" and "${input.name}": ${path}`,
          );
        owners.set(path, input.name);
      }
    }
  }
  const modes = new Set(
    inputs.flatMap(({ note }) => note?.options.bias ?? []).filter((bias) => bias !== "none"),
  );
  if (modes.size > 1)
    throw createRefusal(ADAPTER_REFUSALS.addedBiases, "addWeightedAdapter", [...modes].join(" and "));
  return inputs;
}

/** The new adapter's factors in one layer. */
interface Sum extends Factors {
  r: number;
}

async function computeSums(
  model: Module,
  inputs: readonly Input[],
  options: WeightedAdapterOptions & { combination: Combination },
): Promise<Map<string, Sum>> {
  const sums = new Map<string, Sum>();
  const layers = [...listLoraLayers(model)].map(
    ([path, layer]) => [path, layer, listParts(layer, inputs)] as const,
  );
  for (const [path, , parts] of layers) checkParts(path, parts, options);
  for (const [path, , parts] of layers) {
    if (parts.length > 0) sums.set(path, await computeSum(parts, options));
  }
  return sums;
}

interface Part extends Adapter {
  name: string;
  weight: number;
}

function listParts(layer: AnyLoRALayer, inputs: readonly Input[]): Part[] {
  const present = inputs.filter(({ name }) => layer.adapters.has(name));
  const listPartsOf = (readAdapter: (name: string) => Adapter): Part[] =>
    present.map(({ name, weight }) => ({ ...readAdapter(name), name, weight }));
  const asHeld = listPartsOf((name) => layer.adapters.get(name) as Adapter);
  // A merged layer may have some adapters in its compact form and some plain.
  const kinds = new Set(asHeld.map(({ loraA, loraB }) => deriveBlocks(loraA, loraB).blocks));
  return kinds.size > 1 ? listPartsOf((name) => layer.buildPlainAdapter(name)) : asHeld;
}

function checkParts(
  path: string,
  parts: readonly Part[],
  { combination, rank }: WeightedAdapterOptions & { combination: Combination },
): void {
  const ranks = new Set(parts.map(({ r }) => r));
  if (combination !== "cat" && !combination.endsWith("svd")) {
    if (ranks.size > 1)
      throw createRefusal(
        ADAPTER_REFUSALS.addedRanks,
        "addWeightedAdapter",
        `${combination}, and at ${path} ${parts.map(({ name, r }) => `"${name}" ${r}`).join(", ")}`,
      );
    if (combination !== "linear" && rank !== undefined && !ranks.has(rank))
      refuse(
        `${combination} keeps the rank of its adapters, ${[...ranks].join()}, so that rank can't be ${rank}`,
      );
  }
  const moved = parts.find(({ start }) => start !== undefined);
  if (moved !== undefined && !["linear", "cat", "svd"].includes(combination))
    throw createRefusal(
      ADAPTER_REFUSALS.addedMoved,
      "addWeightedAdapter",
      `${combination}, and "${moved.name}"`,
    );
  const special = parts.find(({ loraBias, magnitude }) => loraBias !== undefined || magnitude !== undefined);
  if (special !== undefined)
    throw createRefusal(
      ADAPTER_REFUSALS.addedSpecial,
      "addWeightedAdapter",
      `"${special.name}": ${special.magnitude ? "magnitudes" : "a bias"}`,
    );
}

async function computeSum(
  parts: readonly Part[],
  options: WeightedAdapterOptions & { combination: Combination },
): Promise<Sum> {
  const { combination, rank } = options;
  const sources = (await Promise.all(parts.map(readSources))).flat();
  const first = sources[0] as WeightedFactors;
  // A grouped convolution's rank r counts all groups together.
  const perBlock = (parts[0] as Part).r / first.blockRank;
  const createSum = (factors: Factors): Sum => ({ ...factors, r: factors.blockRank * perBlock });
  const wanted = rank ?? Math.max(...parts.map(({ r }) => r));
  if (!Number.isInteger(wanted / perBlock))
    refuse(`rank must be a multiple of ${perBlock}, the groups of a convolution, got ${wanted}`);
  const sum = concatenateFactors(sources);
  if (combination === "linear" || combination === "cat") {
    const isExact = rank === undefined || rank >= sum.blockRank * perBlock;
    return createSum(isExact ? sum : await reduceRank(sum, wanted / perBlock));
  }
  if (combination === "svd") return createSum(await reduceRank(sum, wanted / perBlock));
  const arithmetic: ArithmeticOptions = {
    density: options.density ?? 1,
    majoritySign: options.majoritySign ?? "total",
    draw: (_, size) => drawUniformValues(size, 0, 1),
  };
  if (combination.endsWith("_svd")) {
    const kind = combination.slice(0, -"_svd".length) as Arithmetic;
    const products = await Promise.all(sources.map(multiplyFactors));
    const weights = sources.map(({ weight }) => weight);
    return createSum(
      await approximate(combineValues(kind, products, weights, arithmetic), first, wanted / perBlock),
    );
  }
  const kind = combination as Arithmetic;
  const scales = sources.map(({ scaling, weight }) => scaling * weight);
  const roots = scales.map((scale) => Math.sqrt(Math.abs(scale)));
  const signed = roots.map((root, i) => ((scales[i] as number) < 0 ? -root : root));
  return createSum({
    ...first,
    a: combineValues(
      kind,
      sources.map(({ a }) => a),
      signed,
      arithmetic,
    ),
    b: combineValues(
      kind,
      sources.map(({ b }) => b),
      roots,
      arithmetic,
    ),
  });
}

/** Reads an adapter's factors in a layer to the host; a start subtracted from the weight is a separate source. */
async function readSources({ weight, ...adapter }: Part): Promise<WeightedFactors[]> {
  const shares = addStart({ adapter, scaling: adapter.scaling });
  return Promise.all(
    shares.map(async ({ adapter: { loraA, loraB }, scaling }) => {
      const [a, b] = (await Promise.all([loraA.data(), loraB.data()])) as [Float32Array, Float32Array];
      return { a, b, ...deriveBlocks(loraA, loraB), scaling, weight };
    }),
  );
}

/** Returns options for `inject` that make an adapter with the ranks of `sums` and a scaling of 1. */
function describe(model: Targetable, inputs: readonly Input[], sums: ReadonlyMap<string, Sum>) {
  const options = inputs.flatMap(({ note }) => note?.options ?? []);
  const bias = options.find((options) => options.bias !== "none")?.bias;
  const taskType = options[0]?.taskType;
  const tokens = options.find((options) => options.trainableTokenIndices)?.trainableTokenIndices;
  return {
    ...describeRanks(new Map([...sums].map(([path, { r }]) => [path, { r, loraAlpha: r }]))),
    targetModules: matchExactly(
      model,
      [...sums.keys()],
      inputs.map(({ note, layers }) => note?.targets ?? [...layers.keys()]),
    ),
    modulesToSave: [...new Set(options.flatMap((options) => options.modulesToSave))],
    ...(bias === undefined ? {} : { bias }),
    ...(tokens === undefined ? {} : { trainableTokenIndices: tokens }),
    ...(taskType === undefined ? {} : { taskType }),
  };
}

/** Copies the sums, and the inputs' trained copies of modules and biases, into the new adapter. */
function fill(model: Module, name: string, inputs: readonly Input[], sums: ReadonlyMap<string, Sum>): void {
  const write = (
    layer: AnyLoRALayer,
    part: "A" | "B",
    template: Tensor,
    values: Float32Array,
    offsets: number[],
  ): void => {
    const shape = [...offsets, ...template.shape.slice(offsets.length)];
    const filled = tensor(values, { shape, device: template.device });
    if (shape.join() === template.shape.join()) template.copy(filled);
    else layer.replacePart(name, part, filled);
  };
  for (const [path, layer] of listLoraLayers(model)) {
    const [sum, adapter] = [sums.get(path), layer.adapters.get(name)];
    if (sum === undefined || adapter === undefined) continue;
    write(layer, "A", adapter.loraA, sum.a, [sum.blocks * sum.blockRank]);
    write(layer, "B", adapter.loraB, sum.b, [sum.rows, sum.blockRank]);
  }
  const target = findAdapter(model, name);
  for (const input of inputs) {
    for (const kind of ["modules", "biases"] as const) {
      for (const [path, { copy: to }] of target[kind]) {
        const from = input[kind].get(path)?.copy;
        if (from !== undefined) copyOver(to, from);
      }
    }
  }
}

function copyOver(to: Module | Tensor, from: Module | Tensor): void {
  if (isTensor(to)) to.copy(from as Tensor);
  else {
    const state = listSavedTensors(from as Module);
    for (const [key, tensor] of Object.entries(listSavedTensors(to))) tensor.copy(state[key] as Tensor);
  }
}
