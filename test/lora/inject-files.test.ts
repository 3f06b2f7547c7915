/**
 * Any configuration of inject on any tree of modules: an adapter that is saved, loaded and saved again has the same
 * bytes, and unloading restores the base.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import fc from "fast-check";
import { lora, LowrankError, manualSeed, nn, noGrad, scope, tensor, type Tensor } from "../../src/index.js";
import { temporary } from "../hashed.js";

/** A layer, or modules by name. */
type Plan =
  | { kind: "linear"; inputs: number; outputs: number; bias: boolean; fanInFanOut: boolean }
  | { kind: "embedding"; rows: number; width: number }
  | { kind: "convolution"; inputs: number; outputs: number; kernel: number }
  | { kind: "norm"; width: number }
  | { kind: "block"; children: [name: string, plan: Plan][] };

/** Names as adapters, parameters and lists have, too. */
const NAMES = ["q_proj", "lora", "weight", "bias", "default", "layers", "0", "11", "head", "embed_tokens"];

class Tree extends nn.Module {
  constructor(children: [name: string, plan: Plan][]) {
    super();
    for (const [name, plan] of children) Object.assign(this, { [name]: planted(plan) });
  }
  override forward(x: Tensor): Tensor {
    return x;
  }
}

function planted(plan: Plan): nn.Module {
  if (plan.kind === "block") return new Tree(plan.children);
  if (plan.kind === "norm") return new nn.LayerNorm(plan.width, { device: "cpu" });
  if (plan.kind === "embedding") return new nn.Embedding(plan.rows, plan.width, { device: "cpu" });
  if (plan.kind === "convolution") {
    const { inputs, outputs, kernel } = plan;
    return new nn.Conv1d(inputs, outputs, kernel, { device: "cpu" });
  }
  const { inputs, outputs, bias, fanInFanOut } = plan;
  return new nn.Linear(inputs, outputs, { bias, fanInFanOut, device: "cpu" });
}

const size = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 4, max: 6 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 3 }) },
);
const { tree } = fc.letrec<{ tree: Plan; children: [string, Plan][] }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", maxDepth: 3 },
    fc.record({
      kind: fc.constant("linear" as const),
      inputs: size,
      outputs: size,
      bias: fc.boolean(),
      fanInFanOut: fc.boolean(),
    }),
    fc.record({ kind: fc.constant("embedding" as const), rows: size, width: size }),
    fc.record({
      kind: fc.constant("convolution" as const),
      inputs: size,
      outputs: size,
      kernel: fc.integer({ min: 1, max: 3 }),
    }),
    fc.record({ kind: fc.constant("norm" as const), width: size }),
    fc.record({ kind: fc.constant("block" as const), children: tie("children") }),
  ),
  children: fc.uniqueArray(fc.tuple(fc.constantFrom(...NAMES), tie("tree")), {
    minLength: 1,
    maxLength: 4,
    selector: ([name]) => name,
  }),
}));

/** Mostly undefined, so that most configurations suit their trees. */
const some = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value });
const seldom = fc.constantFrom(true, false, false, false, false);
const name = fc.constantFrom(...NAMES);
const options = fc.record({
  r: fc.constantFrom(1, 2, 4),
  loraAlpha: fc.constantFrom(1, 6, 0.5),
  loraDropout: fc.constantFrom(0, 0.25),
  targetModules: fc.oneof(
    fc.constant("all-linear"),
    fc.constantFrom(".*", String.raw`.*(q_proj|0|default)`, String.raw`(?P<a>\w+)\.?(?P=a)?`),
    fc.uniqueArray(name, { minLength: 3, maxLength: 8 }),
  ),
  excludeModules: some(fc.oneof(fc.constant(".*head"), fc.uniqueArray(name, { minLength: 1, maxLength: 2 }))),
  layersToTransform: some(fc.constantFrom(0, 11, [0, 11])),
  rankPattern: some(fc.dictionary(name, fc.constantFrom(1, 2, 3), { maxKeys: 2 })),
  alphaPattern: some(fc.dictionary(name, fc.constantFrom(1, 2.5), { maxKeys: 2 })),
  bias: fc.constantFrom("none" as const, "all" as const, "lora_only" as const),
  modulesToSave: some(fc.uniqueArray(name, { minLength: 1, maxLength: 2 })),
  useRslora: fc.boolean(),
  useDora: seldom,
  loraBias: seldom,
  initLoraWeights: fc.constantFrom<lora.InitLoraWeights[]>(
    true,
    true,
    false,
    "gaussian",
    "orthogonal",
    "pissa",
    "pissa_niter_2",
    "olora",
  ),
  trainableTokenIndices: some(fc.constant({ embed_tokens: [0] })),
  taskType: some(fc.constantFrom("CAUSAL_LM", "SEQ_CLS")),
  name: fc.constantFrom("default", "other"),
  /** Whether to remove names that the tree lacks, which would be refused. */
  fits: fc.constantFrom(true, true, true, true, true, false),
});

/** Returns the options without the names and numbers that no layer of `model` has. */
function fitted(model: nn.Module, drawn: object): lora.InjectOptions {
  const given = drawn as lora.InjectOptions;
  const paths = [...model.namedModules()].flatMap(([path, module]) =>
    module instanceof nn.Linear || module instanceof nn.Embedding || module instanceof nn.Conv2d
      ? [path]
      : [],
  );
  const names = paths.map((path) => path.split(".").at(-1) as string);
  const numbers = paths.map((path) => Number(/^.*?\.[^.]*\.(\d+)\./.exec(path)?.[1]));
  const known = (all: readonly string[]): string[] => all.filter((one) => names.includes(one));
  const heads = paths.some((path) => path.endsWith("head"));
  const unlessEmpty = <T>(list: T[]): T[] | undefined => (list.length === 0 ? undefined : list);
  const { targetModules, excludeModules, layersToTransform } = given;
  const patterns = (["rankPattern", "alphaPattern"] as const).map((option) => {
    const entries = Object.entries(given[option] ?? {});
    return [option, Object.fromEntries(entries.filter(([key]) => names.includes(key)))];
  });
  return {
    ...given,
    targetModules: typeof targetModules === "string" ? targetModules : known(targetModules ?? []),
    excludeModules:
      typeof excludeModules === "string"
        ? heads
          ? excludeModules
          : undefined
        : unlessEmpty(known(excludeModules ?? [])),
    layersToTransform: unlessEmpty([layersToTransform ?? []].flat().filter((one) => numbers.includes(one))),
    ...Object.fromEntries(patterns),
  };
}

/** Returns every tensor of a model, with its values. */
async function contents(model: nn.Module): Promise<[string, number[]][]> {
  return Promise.all(
    Object.entries(model.stateDict()).map(
      async ([at, one]) => [at, [...(await one.data())]] as [string, number[]],
    ),
  );
}

/** Randomises the trained tensors. */
function shake(model: nn.Module): void {
  let seed = 1;
  noGrad(() =>
    scope(() => {
      for (const one of model.parameters()) {
        if (!one.requiresGrad) continue;
        const values = Array.from({ length: one.size }, () => Math.sin(seed++));
        one.copy(tensor(values, { shape: one.shape, device: "cpu" }));
      }
    }),
  );
}

test("any configuration is bit-identical after saving and loading, and unloading restores the base", async (t) => {
  let adapted = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.tuple(name, tree), { minLength: 1, maxLength: 4, selector: ([one]) => one }),
      options,
      async (children, drawn) => {
        manualSeed(7);
        const model = new Tree(children);
        const { fits, ...plain } = drawn;
        const given = fits ? fitted(model, plain) : (plain as lora.InjectOptions);
        manualSeed(7);
        const second = new Tree(children);
        const before = await contents(model);
        const dir = temporary();
        try {
          await lora.inject(model, given);
        } catch (refusal) {
          // An impossible configuration is refused with a code, and nothing is changed.
          if (!(refusal instanceof LowrankError)) throw refusal;
          t.not(refusal.code, "ERR_INTERNAL", refusal.message);
          t.deepEqual(await contents(model), before);
          t.deepEqual(lora.adapters(model), []);
          t.true(Object.values(model.stateDict()).every((one) => one.requiresGrad));
          return;
        }
        adapted++;
        shake(model);
        const adapter = { name: given.name ?? "default" };
        const [first, again] = [join(dir, "first"), join(dir, "again")];
        await lora.saveAdapter(model, first, adapter);
        await lora.loadAdapter(second, first, { ...adapter, trainable: true });
        t.deepEqual((await contents(second)).sort(), (await contents(model)).sort());
        await lora.saveAdapter(second, again, adapter);
        const inside = adapter.name === "default" ? "" : adapter.name;
        for (const file of ["adapter_config.json", "adapter_model.safetensors"])
          t.deepEqual(readFileSync(join(again, inside, file)), readFileSync(join(first, inside, file)), file);
        t.deepEqual(await contents(lora.unload(model)), before);
        model.dispose();
        second.dispose();
      },
    ),
    { numRuns: 250, seed: 5 },
  );
  t.true(adapted > 40, `${adapted} of the configurations fit their trees`);
});
