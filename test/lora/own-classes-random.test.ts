/** `inject` and `fromBase` over random user-defined layers: bit-identical, or refused by path and class. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import test from "ava";
import fc from "fast-check";

import {
  LowrankError,
  lora,
  manualSeed,
  nn,
  noGrad,
  ones,
  randn,
  safetensors,
  scope,
  tensor,
  type Tensor,
} from "../../src/index.js";

type Any = (...inputs: Tensor[]) => Tensor;
type Base = nn.Linear | nn.Embedding | nn.Conv1d | nn.Conv2d;

const KINDS = {
  linear: { Base: nn.Linear, args: [5, 4], x: () => randn([3, 5]) },
  embedding: {
    Base: nn.Embedding,
    args: [6, 4],
    x: () => tensor(Int32Array.of(1, 4, 2, 1), { shape: [2, 2] }),
  },
  conv1d: { Base: nn.Conv1d, args: [3, 4, 3], x: () => randn([2, 3, 6]) },
  conv2d: { Base: nn.Conv2d, args: [2, 4, [3, 2]], x: () => randn([2, 2, 5, 4]) },
} as const;

/**
 * For each kind of forward, its output as a function of the base's; undefined if the class does not define forward.
 */
const FORWARDS = {
  none: undefined,
  scaled: (base: () => Tensor) => base().mul(1.5),
  gated: (base: () => Tensor, layer: Base) => base().mul(layer.weight.abs().mean().sigmoid()),
  nonlinear: (base: () => Tensor) => base().relu().add(base().tanh()),
  promise: (base: () => Tensor) => Promise.resolve(base()) as unknown as Tensor,
  assigning: (base: () => Tensor, layer: Base) => {
    const y = base();
    layer.weight = ones(layer.weight.shape, { requiresGrad: true });
    return y;
  },
} as const;

const COLLISIONS = ["scaling", "r", "active", "adapters", "plain", "merged", "unmergedWeight"] as const;

const specs = fc.record({
  kind: fc.constantFrom(...(Object.keys(KINDS) as (keyof typeof KINDS)[])),
  forward: fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom("none", "scaled", "gated", "nonlinear") },
    { weight: 1, arbitrary: fc.constantFrom("promise", "assigning") },
  ) as fc.Arbitrary<keyof typeof FORWARDS>,
  assigned: fc.boolean(),
  parameter: fc.boolean(),
  buffer: fc.boolean(),
  submodule: fc.boolean(),
  privateField: fc.boolean(),
  train: fc.boolean(),
  renames: fc.boolean(),
  collision: fc.oneof(
    { weight: 5, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.constantFrom(...COLLISIONS) },
  ),
  frozen: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  computed: fc.oneof(
    { weight: 9, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
  useDora: fc.boolean(),
  init: fc.constantFrom(true, false, "gaussian" as const),
  seed: fc.nat(1000),
});
type Spec = typeof specs extends fc.Arbitrary<infer T> ? T : never;

type Held = nn.Module & { weight: Tensor; forward(x: Tensor): Tensor };

/** Returns a layer described by `spec`, with its class, fields and forward. */
function layerOf(spec: Spec): Base {
  const { Base, args } = KINDS[spec.kind];
  const own = FORWARDS[spec.forward];
  const Kind = Base as unknown as new (...args: unknown[]) => Held;
  class Made extends Kind {
    #secret = 2;
    modes: boolean[] = [];
    get secret(): number {
      return this.#secret;
    }
    override train(mode = true): this {
      if (spec.train) this.modes.push(mode);
      return super.train(mode);
    }
    override *ownParameters(): IterableIterator<[string, Tensor]> {
      for (const [name, one] of super.ownParameters())
        yield [spec.renames && name === "weight" ? "kernel" : name, one];
    }
  }
  if (own !== undefined) {
    const change: (base: () => Tensor, layer: Base) => Tensor = own;
    class WithForward extends Made {
      override forward(x: Tensor): Tensor {
        const y = change(() => super.forward(x), this as unknown as Base);
        const extra = this as unknown as { gain?: Tensor; offset?: Tensor; inner?: nn.Linear };
        if (!(y instanceof Promise) && spec.privateField) return y.mul(this.secret);
        if (!(y instanceof Promise) && extra.gain) return y.mul(extra.gain);
        return y;
      }
    }
    return finished(new WithForward(...args) as unknown as Base, spec);
  }
  return finished(new Made(...args) as unknown as Base, spec);
}

function finished(layer: Base, spec: Spec): Base {
  const own = layer as unknown as Record<string, unknown> & nn.Module;
  if (spec.parameter) own["gain"] = ones([1], { requiresGrad: true });
  if (spec.buffer) own.registerBuffer("offset", ones([2]));
  if (spec.submodule) own["inner"] = new nn.Linear(2, 2);
  if (spec.collision !== null) own[spec.collision] ??= 1.25;
  if (spec.assigned) {
    const forward = layer.forward as Any;
    own["forward"] = (x: Tensor) => {
      const y = forward.call(layer, x);
      return y instanceof Promise ? y : y.add(1);
    };
  }
  if (spec.computed) {
    const { weight } = layer;
    Object.defineProperty(layer, "weight", { get: () => weight, enumerable: true, configurable: true });
  }
  if (spec.frozen) Object.freeze(layer);
  return layer;
}

class Around extends nn.Module {
  constructor(
    public at: { layer: Base } & Base,
    public other: nn.Linear,
  ) {
    super();
  }
  forward(x: Tensor): Tensor {
    return (this.at.forward as Any)(x);
  }
}

const around = (layer: Base): Around => new Around(layer as never, new nn.Linear(2, 2));
const run = (layer: nn.Module, x: Tensor): Tensor => (layer.forward as Any).call(layer, x);
const values = async (t: Tensor): Promise<number[]> => [...((await t.data()) as Float32Array)];

/** Returns the names and values of a state dict. */
async function contents(state: Record<string, Tensor>): Promise<Record<string, number[]>> {
  const found: Record<string, number[]> = {};
  for (const [name, one] of Object.entries(state)) found[name] = await values(one);
  return found;
}

function fill(model: nn.Module): void {
  noGrad(() =>
    scope(() => {
      for (const [name, part] of model.namedParameters())
        if (name.includes("lora_A") || name.includes("lora_B") || name.includes("lora_embedding"))
          part.copy(randn(part.shape).mul(0.2));
    }),
  );
}

/** Sums of at most 30 products and four operations after them: some 60 roundings of 6e-8 of the largest. */
const ROUNDING = 1e-5;
function off(a: number[], b: number[]): number {
  const largest = Math.max(...b.map(Math.abs), 1e-3);
  return Math.max(...a.map((v, i) => Math.abs(v - (b[i] as number)))) / largest;
}

/** Whether an error names the layer and a remedy. */
function isNamed(error: unknown, { name }: { name: string }): boolean {
  return error instanceof LowrankError && error.message.includes(name) && error.message.includes("; ");
}

async function caught(fn: () => unknown): Promise<unknown> {
  try {
    await fn();
    return undefined;
  } catch (error) {
    return error;
  }
}

let [kept, refused] = [0, 0];

async function check(spec: Spec, dir: string): Promise<void> {
  manualSeed(spec.seed);
  const layer = layerOf(spec);
  const model = around(layer);
  const x = KINDS[spec.kind].x();
  const asynchronous = spec.forward === "promise";
  // A forward that assigns its weight changes the output by itself.
  const steady = spec.forward !== "assigning";
  const before = asynchronous || !steady ? [] : await values(run(layer, x));
  const state = await contents(model.stateDict());
  const keys = new Set(Reflect.ownKeys(layer));
  const prototype = Object.getPrototypeOf(layer) as object;
  const Class = layer.constructor as { name: string };

  const unchanged = async (): Promise<void> => {
    if ((model.at as Base) !== layer) throw new Error("the layer was replaced by another object");
    if (Object.getPrototypeOf(layer) !== prototype) throw new Error("its class has changed");
    const now = new Set(Reflect.ownKeys(layer));
    if (now.size !== keys.size || [...keys].some((key) => !now.has(key)))
      throw new Error("its fields have changed");
    equal(await contents(model.stateDict()), state, "state");
    if (before.length > 0) equal(await values(run(layer, x)), before, "output");
  };

  const Low = { linear: lora.Linear, embedding: lora.Embedding, conv1d: lora.Conv1d, conv2d: lora.Conv2d }[
    spec.kind
  ];
  const byHand = await caught(() =>
    (Low as { fromBase(l: nn.Module, o: object): unknown }).fromBase(layer, { r: 2 }),
  );
  if (!isNamed(byHand, Class)) throw new Error(`fromBase took it: ${String(byHand)}`);
  await unchanged();

  const options = {
    r: 2,
    loraAlpha: 3,
    useDora: spec.useDora,
    initLoraWeights: spec.init,
    targetModules: ["at"],
  };
  const refusal = await caught(() => lora.inject(model, options));
  if (refusal !== undefined) {
    if (!isNamed(refusal, Class) || !(refusal as Error).message.includes("at, a "))
      throw new Error(`not refused by name: ${String(refusal)}`);
    await unchanged();
    refused++;
    return;
  }
  if ((model.at as Base) !== layer) throw new Error("the layer was replaced by another object");
  if (asynchronous || !steady) {
    const error = await caught(() => run(layer, x));
    if (!isNamed(error, Class)) throw new Error(`forward was not refused by name: ${String(error)}`);
    lora.unload(model);
    await unchanged();
    refused++;
    return;
  }
  // DoRA divides by the norm and multiplies with it, so a fresh adapter has no effect; random values of B change
  // the output.
  const fresh = await values(run(layer, x));
  if (!spec.useDora && spec.init !== false) equal(fresh, before, "fresh adapter's output");
  fill(model);
  const adapted = await values(run(layer, x));
  await lora.merge(model);
  const base = (await contents(model.stateDict()))[spec.renames ? "at.kernel" : "at.weight"];
  equal(base, state[spec.renames ? "at.kernel" : "at.weight"], "state while merged");
  near(await values(run(layer, x)), adapted, "merged output");
  lora.unmerge(model);
  equal(await values(run(layer, x)), adapted, "unmerged output");

  // Loads the state and the adapter's folder into another model of the class.
  const twin = around(layerOf(spec));
  await safetensors.save(join(dir, "state.safetensors"), model.stateDict());
  await lora.inject(twin, options);
  twin.loadStateDict(await safetensors.load(join(dir, "state.safetensors")));
  equal(await values(run(twin, x)), adapted, "output by the loaded state");
  await lora.saveAdapter(model, join(dir, "adapter"));
  lora.unload(model);
  await unchanged();
  await lora.loadAdapter(model, join(dir, "adapter"));
  equal(await values(run(layer, x)), adapted, "output by the loaded adapter");

  await lora.mergeAndUnload(model);
  if ((model.at as Base) !== layer || Object.getPrototypeOf(layer) !== prototype)
    throw new Error("not itself again");
  equal(new Set(Object.keys(model.stateDict())), new Set(Object.keys(state)), "names of the merged state");
  near(await values(run(layer, x)), adapted, "output after mergeAndUnload");
  kept++;
}

function equal(a: unknown, b: unknown, what: string): void {
  const text = (v: unknown): string => JSON.stringify(v instanceof Set ? [...v].sort() : v);
  if (text(a) !== text(b)) throw new Error(`${what}: ${text(a)} instead of ${text(b)}`);
}

function near(a: number[], b: number[], what: string): void {
  const found = off(a, b);
  if (!(found <= ROUNDING)) throw new Error(`${what} is off by ${found}`);
}

test("random user-defined layers stay intact, or are refused by name", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "lowrank-"));
  t.teardown(() => rm(dir, { recursive: true }));
  await fc.assert(
    fc.asyncProperty(specs, (spec) => check(spec, dir)),
    { numRuns: 150, seed: 42 },
  );
  t.log(`${kept} kept, ${refused} refused`);
  t.true(kept > 40 && refused > 20);
});
