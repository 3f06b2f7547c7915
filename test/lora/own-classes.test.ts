/**
 * User-defined layers: an adapter keeps their class, forward, fields and parameters, or names the part that it
 * refuses.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import test from "ava";

import {
  lora,
  manualSeed,
  nn,
  noGrad,
  ones,
  optim,
  randn,
  scope,
  tensor,
  type Tensor,
} from "../../src/index.js";

/** Standardises its weight before the product (Qiao et al. 2019). */
class StandardisedLinear extends nn.Linear {
  override forward(x: Tensor): Tensor {
    const mean = this.weight.mean(1, { keepDim: true });
    const centred = this.weight.sub(mean);
    const norm = centred.mul(centred).mean(1, { keepDim: true }).add(1e-5).sqrt();
    const y = x.matmul(centred.div(norm), { transB: true });
    return this.bias === null ? y : y.add(this.bias);
  }
}

/** Multiplies the product by a trained gain, a private factor, and a gate, which is another layer. */
class GatedLinear extends nn.Linear {
  static readonly shift = 0.5;
  readonly #factor = 3;
  gain: Tensor;
  gate: nn.Linear;
  calls = 0;

  constructor(inFeatures: number, outFeatures: number) {
    super(inFeatures, outFeatures);
    this.gain = ones([outFeatures], { requiresGrad: true });
    this.gate = new nn.Linear(inFeatures, outFeatures);
    this.registerBuffer("offset", ones([outFeatures]));
  }

  get factor(): number {
    return this.#factor;
  }

  override forward(x: Tensor): Tensor {
    this.calls++;
    const { shift } = this.constructor as typeof GatedLinear;
    const open = this.gate.forward(x).sigmoid();
    const { offset } = this as unknown as { offset: Tensor };
    return super.forward(x).mul(this.gain).mul(this.factor).mul(open).add(offset.mul(shift));
  }
}

/** Adds fields, and computes the same as nn.Linear. */
class NamedLinear extends nn.Linear {
  label = "query";
  readonly #secret = 7;
  get secret(): number {
    return this.#secret;
  }
}

class ScaledEmbedding extends nn.Embedding {
  override forward(ids: Tensor): Tensor {
    return super.forward(ids).mul(Math.sqrt(this.embeddingDim));
  }
}

class WeightStandardisedConv extends nn.Conv2d {
  override forward(x: Tensor): Tensor {
    const held = this.weight;
    const flat = held.reshape(this.outChannels, -1);
    const centred = flat.sub(flat.mean(1, { keepDim: true })).reshape(held.shape);
    const plain = new nn.Conv2d(this.inChannels, this.outChannels, this.kernelSize, { weight: centred });
    return plain.forward(x);
  }
}

class Around<L extends nn.Module> extends nn.Module {
  constructor(
    public layer: L,
    public other = new nn.Linear(3, 3),
  ) {
    super();
  }
  forward(x: Tensor): Tensor {
    return (this.layer.forward as (x: Tensor) => Tensor)(x);
  }
}

const values = async (t: Tensor): Promise<number[]> => [...((await t.data()) as Float32Array)];
const outputs = (layer: nn.Module, x: Tensor): Promise<number[]> =>
  values(noGrad(() => (layer.forward as (x: Tensor) => Tensor).call(layer, x)));

/** Randomises both factors, so that the adapter has an effect. */
function fill(model: nn.Module): void {
  noGrad(() =>
    scope(() => {
      for (const [name, part] of model.namedParameters())
        if (name.includes("lora_")) part.copy(randn(part.shape).mul(0.3));
    }),
  );
}

/** Returns the largest difference, relative to the largest value. */
function off(a: number[], b: number[]): number {
  const largest = Math.max(...b.map(Math.abs), 1e-6);
  return Math.max(...a.map((v, i) => Math.abs(v - (b[i] as number)))) / largest;
}

interface Case {
  layer(): nn.Module;
  x(): Tensor;
}

const ids = (): Tensor => tensor(Int32Array.of(1, 4, 2), { shape: [3] });
const cases: Record<string, Case> = {
  "a standardised weight": { layer: () => new StandardisedLinear(5, 4), x: () => randn([3, 5]) },
  "a gate, a gain and a buffer": { layer: () => new GatedLinear(5, 4), x: () => randn([3, 5]) },
  "fields alone": { layer: () => new NamedLinear(5, 4), x: () => randn([3, 5]) },
  "a scaled embedding": { layer: () => new ScaledEmbedding(6, 4), x: ids },
  "a standardised kernel": { layer: () => new WeightStandardisedConv(3, 4, 3), x: () => randn([2, 3, 5, 5]) },
  "a forward that was assigned": {
    layer() {
      const layer = new nn.Linear(5, 4);
      const forward = layer.forward.bind(layer);
      layer.forward = (x) => forward(x).mul(2);
      return layer;
    },
    x: () => randn([3, 5]),
  },
};

for (const [name, { layer: make, x: draw }] of Object.entries(cases)) {
  test(`${name}: kept by inject, and merged as it was trained`, async (t) => {
    manualSeed(3);
    const layer = make();
    const model = new Around(layer);
    const x = draw();
    const before = await outputs(layer, x);
    const { constructor } = layer;
    const [keys, state] = [Reflect.ownKeys(layer), Object.keys(layer.stateDict())];

    await lora.inject(model, { r: 2, targetModules: ["layer"] });
    t.is(model.layer, layer);
    t.true(layer instanceof (constructor as typeof nn.Linear) && layer instanceof lora.LoRALayer);
    t.deepEqual(await outputs(layer, x), before);

    const trained = [...model.parameters({ trainable: true })];
    t.is(trained.length, 2);
    const optimizer = new optim.AdamW(trained, { lr: 0.05 });
    for (let step = 0; step < 4; step++) {
      scope(() => {
        const y = (layer.forward as (x: Tensor) => Tensor).call(layer, x);
        y.mul(y).sum().backward();
      });
      optimizer.step();
      optimizer.zeroGrad();
    }
    const adapted = await outputs(layer, x);
    t.true(off(adapted, before) > 1e-3);
    // A user-defined forward runs the same operations on the same values.
    await lora.merge(model);
    t.true(off(await outputs(layer, x), adapted) <= 1e-5);
    lora.unmerge(model);
    t.deepEqual(await outputs(layer, x), adapted);
    t.deepEqual(await lora.withoutAdapters(model, () => outputs(layer, x)), before);

    await lora.mergeAndUnload(model);
    t.is(model.layer, layer);
    t.true(off(await outputs(layer, x), adapted) <= 1e-5);
    t.deepEqual(new Set(Reflect.ownKeys(layer)), new Set(keys));
    t.deepEqual(Object.keys(layer.stateDict()), state);
    t.is(Object.getPrototypeOf(layer), constructor.prototype);
  });

  test(`${name}: saved, unloaded and loaded`, async (t) => {
    manualSeed(4);
    const dir = await mkdtemp(join(tmpdir(), "lowrank-"));
    t.teardown(() => rm(dir, { recursive: true }));
    const layer = make();
    const model = new Around(layer);
    const x = draw();
    const before = await outputs(layer, x);
    await lora.inject(model, { r: 2, targetModules: ["layer"] });
    fill(model);
    const adapted = await outputs(layer, x);
    await lora.saveAdapter(model, join(dir, "a"));
    lora.unload(model);
    t.false(layer instanceof lora.LoRALayer);
    t.deepEqual(await outputs(layer, x), before);
    await lora.loadAdapter(model, join(dir, "a"));
    t.deepEqual(await outputs(layer, x), adapted);
    lora.deleteAdapter(model, "default");
    t.deepEqual(await outputs(layer, x), before);
  });

  test(`${name}: refused by fromBase, by name`, (t) => {
    const layer = make();
    const [Low, kind] =
      layer instanceof nn.Linear
        ? [lora.Linear, "lora.Linear"]
        : layer instanceof nn.Embedding
          ? [lora.Embedding, "lora.Embedding"]
          : [lora.Conv2d, "lora.Conv2d"];
    const error = t.throws(() => (Low as { fromBase(layer: nn.Module): unknown }).fromBase(layer), {
      code: "ERR_OPTION",
    });
    t.true(error?.message.startsWith(`${kind}.fromBase: `) && error.message.includes(layer.constructor.name));
  });
}

test("a step that fails removes the adapters of user-defined layers again", async (t) => {
  const own = new StandardisedLinear(3, 4);
  const model = new nn.Sequential(own, new ScaledByHand(4, 4));
  const keys = Reflect.ownKeys(own);
  await t.throwsAsync(lora.inject(model, { r: 2, targetModules: ["0"], modulesToSave: ["1"] }), {
    message: /1, a ScaledByHand: private members/,
  });
  t.false(own instanceof lora.LoRALayer);
  t.deepEqual(Reflect.ownKeys(own), keys);
  t.is(Object.getPrototypeOf(own), StandardisedLinear.prototype);
  t.true(own.weight.requiresGrad);
});

/** A class with a private field, which a copy would lack. */
class ScaledByHand extends nn.Linear {
  readonly #scale = 2;
  override forward(x: Tensor): Tensor {
    return super.forward(x).mul(this.#scale);
  }
}

test("modulesToSave refuses modules that cannot be copied, and copies nn.MultiheadAttention", async (t) => {
  const arrow = new nn.Linear(3, 3);
  arrow.forward = (x) => x.mul(arrow.weight.sum());
  for (const [module, found] of [
    [new ScaledByHand(3, 3), "private members"],
    [arrow, "forward"],
  ] as const) {
    const model = new nn.Sequential(new nn.Linear(3, 3), module);
    const refused = lora.inject(model, { r: 1, targetModules: ["0"], modulesToSave: ["1"] });
    await t.throwsAsync(refused, { code: "ERR_OPTION", message: new RegExp(`1, a \\w+: ${found}`) });
  }
  const model = new nn.Sequential(new nn.Linear(4, 4), new nn.MultiheadAttention(4, 2));
  const x = randn([3, 2, 4]);
  const before = await outputs(model, x);
  await lora.inject(model, { r: 1, targetModules: ["0"], modulesToSave: ["1"] });
  t.deepEqual(await outputs(model, x), before);
});

test("adapters inside the weight of a user-defined forward refuse dropout, other dtypes and adapters by row", async (t) => {
  const dropped = new Around(new StandardisedLinear(5, 4));
  await t.throwsAsync(lora.inject(dropped, { r: 2, loraDropout: 0.1, targetModules: ["layer"] }), {
    message: /^inject: loraDropout on a layer with its own forward \(layer, a StandardisedLinear\)/,
  });
  // Without a user-defined forward there are inputs for dropout.
  await lora.inject(new Around(new NamedLinear(5, 4)), { r: 2, loraDropout: 0.1, targetModules: ["layer"] });

  const half = new StandardisedLinear(5, 4, { weight: randn([4, 5]).to("bf16") });
  await t.throwsAsync(lora.inject(new Around(half), { r: 2, targetModules: ["layer"] }), {
    code: "ERR_DTYPE",
  });
  t.false(half instanceof lora.LoRALayer);

  const table = new Around(new ScaledEmbedding(6, 4));
  await t.throwsAsync(
    lora.inject(table, { r: 1, targetModules: ["other"], trainableTokenIndices: { layer: [1] } }),
    { message: /layer, a ScaledEmbedding/ },
  );
});

test("several adapters of a user-defined layer: weights, switching, removing in turn", async (t) => {
  manualSeed(5);
  const layer = new GatedLinear(5, 4);
  const model = new Around(layer);
  const x = randn([3, 5]);
  const base = await outputs(layer, x);
  for (const name of ["a", "b"]) await lora.inject(model, { r: 2, targetModules: ["layer"], name });
  fill(model);
  lora.setAdapter(model, "a");
  const a = await outputs(layer, x);
  lora.setAdapter(model, "b");
  const b = await outputs(layer, x);
  lora.setAdapter(model, { a: 0.5, b: 2 });
  // The layer is linear in its weight; the gate does not depend on it.
  const sum = base.map((v, i) => v + 0.5 * ((a[i] as number) - v) + 2 * ((b[i] as number) - v));
  t.true(off(await outputs(layer, x), sum) < 1e-5);
  await t.throwsAsync(lora.inject(model, { r: 1, loraDropout: 0.5, targetModules: ["layer"], name: "c" }), {
    message: /loraDropout/,
  });
  lora.deleteAdapter(model, "a");
  lora.setAdapter(model, "b");
  t.deepEqual(await outputs(layer, x), b);
  lora.deleteAdapter(model, "b");
  t.deepEqual(await outputs(layer, x), base);
  t.is(Object.getPrototypeOf(layer), GatedLinear.prototype);
  t.true(layer.calls > 0 && layer.factor === 3);
});

test("user-defined low-rank classes keep their class when their adapter is removed", async (t) => {
  manualSeed(6);
  class Doubled extends lora.Linear {
    gain = 2;
    override forward(x: Tensor): Tensor {
      return super.forward(x).mul(this.gain);
    }
  }
  class Buffered extends lora.LoRALayer(nn.Linear) {
    constructor() {
      super(5, 4);
      this.registerBuffer("offset", ones([4]));
    }
    override createAdapter = undefined as never;
    override computeStoredShape = undefined as never;
    override toPlain = undefined as never;
  }
  t.deepEqual(Object.keys(new Buffered().stateDict()), ["weight", "bias", "offset"]);

  const layer = new Doubled(5, 4, { r: 2 });
  const model = new Around(layer);
  const x = randn([3, 5]);
  fill(model);
  const adapted = await outputs(layer, x);
  await lora.mergeAndUnload(model);
  t.is(model.layer, layer);
  t.true(off(await outputs(layer, x), adapted) < 1e-5);

  class Kernel extends lora.ConvLoRA(WeightStandardisedConv) {}
  const conv = new Kernel(3, 4, 3, { r: 2 });
  const image = randn([2, 3, 5, 5]);
  const plain = new WeightStandardisedConv(3, 4, 3, { weight: conv.weight, biasValues: conv.bias as Tensor });
  t.deepEqual(await outputs(conv, image), await outputs(plain, image));
  fill(conv);
  const apart = await outputs(conv, image);
  conv.merge();
  t.true(off(await outputs(conv, image), apart) < 1e-5);
});

test("an assigned forward survives EVA's pass over the data", async (t) => {
  manualSeed(7);
  const layer = new nn.Linear(6, 4);
  const forward = layer.forward.bind(layer);
  layer.forward = (x) => forward(x).mul(2);
  const assigned = layer.forward;
  const model = new nn.Sequential(layer);
  const x = randn([40, 6]);
  const before = await outputs(model, x);
  await lora.inject(model, { r: 2, targetModules: ["0"], initLoraWeights: "eva", evaData: [x, x] });
  t.deepEqual(await outputs(model, x), before);
  lora.unload(model);
  t.is(layer.forward, assigned);
});

test("no module of the package has private members, which a trained copy would lack", (t) => {
  const classes = Object.entries(nn).filter(
    ([, value]) => typeof value === "function" && (value.prototype as unknown) instanceof nn.Module,
  );
  t.true(classes.length > 20);
  for (const [name, one] of classes) t.notRegex(String(one), /\bthis\.#/, name);
});
