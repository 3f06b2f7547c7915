/** Recommendations of the refusals of user-defined layers work. */
import test from "ava";

import { lora, nn, randn, tensor, type Tensor } from "../../src/index.js";

const ALL = { targetModules: "all-linear", r: 2 };
const EXCLUDED = /leave (the layer|it) out with excludeModules/;
const batch = (): Tensor =>
  tensor(
    Float32Array.from({ length: 8 }, (_, i) => i / 8),
    { shape: [2, 4] },
  );

/** Returns a model with a plain layer and `own`. */
function around(own: nn.Linear): nn.Module & { forward(x: Tensor): unknown } {
  class Model extends nn.Module {
    plain = new nn.Linear(4, 4);
    own = own;
    override forward(x: Tensor): Tensor {
      return this.own.forward(this.plain.forward(x));
    }
  }
  return new Model();
}

class Doubled extends nn.Linear {
  override forward(x: Tensor): Tensor {
    return super.forward(x).mul(2);
  }
}
class Hidden extends nn.Linear {
  #weight = randn([4, 4]);
  constructor() {
    super(4, 4);
    Object.defineProperty(this, "weight", { get: () => this.#weight, configurable: true });
  }
}
class Plain extends nn.Linear {}
class Named extends nn.Linear {
  adapters = "mine";
}
class Renamed extends nn.Linear {
  myAdapters = "mine";
}

interface Case {
  key: string;
  refused: () => nn.Linear;
  options?: lora.InjectOptions;
  message: RegExp;
  /** The layer changed according to the message; undefined if options are to change. */
  mended?: () => nn.Linear;
  instead?: lora.InjectOptions;
}

const CASES: Case[] = [
  {
    key: "ownFrozen",
    refused: () => Object.freeze(new Plain(4, 4)) as Plain,
    message: /leave it unfrozen, or/,
    mended: () => new Plain(4, 4),
  },
  {
    key: "ownWeight",
    refused: () => new Hidden(),
    message: /hold the weight as a property of that shape/,
    mended: () => new Plain(4, 4),
  },
  {
    key: "ownName",
    refused: () => new Named(4, 4),
    message: /\(.*adapters.*\).*rename the property/,
    mended: () => new Renamed(4, 4),
  },
  {
    key: "ownForwardProperty",
    refused: () => {
      const layer = new nn.Linear(4, 4);
      Object.defineProperty(layer, "forward", { get: () => (x: Tensor) => x, configurable: true });
      return layer;
    },
    message: /make forward a method/,
    mended: () => new Doubled(4, 4),
  },
  {
    key: "ownForwardDropout",
    refused: () => new Doubled(4, 4),
    options: { ...ALL, loraDropout: 0.5 },
    message: /set loraDropout to 0/,
    instead: { ...ALL, loraDropout: 0 },
  },
  {
    key: "ownForwardDtype",
    refused: () => new Doubled(4, 4, { weight: randn([4, 4]).to("bf16") }),
    message: /store the weight in f32/,
    mended: () => new Doubled(4, 4, { weight: randn([4, 4]) }),
  },
];

for (const { key, refused, options = ALL, message, mended = refused, instead = options } of CASES) {
  test(`a layer is changed as its refusal says, or excluded: ${key}`, async (t) => {
    const error = await t.throwsAsync(lora.inject(around(refused()), options), { message });
    t.regex(error.message, EXCLUDED);
    const model = around(mended());
    t.deepEqual((await lora.inject(model, instead)).adapted, ["plain", "own"]);
    t.deepEqual((model.forward(batch()) as Tensor).shape, [2, 4]);
    const left = { ...options, excludeModules: ["own"] };
    t.deepEqual((await lora.inject(around(refused()), left)).adapted, ["plain"]);
  });
}

class Async extends nn.Linear {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  override forward(x: Tensor): any {
    return Promise.resolve(super.forward(x));
  }
}
class Assigning extends nn.Linear {
  override forward(x: Tensor): Tensor {
    this.weight = randn([4, 4]) as typeof this.weight;
    return super.forward(x);
  }
}
class AssigningElsewhere extends nn.Linear {
  renew(): void {
    this.weight = randn([4, 4]) as typeof this.weight;
  }
}

const LATE: [key: string, refused: () => nn.Linear, message: RegExp, mended: () => nn.Linear][] = [
  [
    "ownForwardAsync",
    () => new Async(4, 4),
    /make its forward synchronous, or leave the layer out/,
    () => new Doubled(4, 4),
  ],
  [
    "ownForwardAssigns",
    () => new Assigning(4, 4),
    /assign it elsewhere, or leave the layer out/,
    () => {
      const layer = new AssigningElsewhere(4, 4);
      layer.renew();
      return layer;
    },
  ],
];
for (const [key, refused, message, mended] of LATE) {
  test(`a forward is changed as its refusal says, or its layer excluded: ${key}`, async (t) => {
    const model = around(refused());
    await lora.inject(model, ALL);
    const error = await t.throwsAsync(async () => model.forward(batch()), { message });
    t.regex(error.message, EXCLUDED);
    const changed = around(mended());
    t.deepEqual((await lora.inject(changed, ALL)).adapted, ["plain", "own"]);
    t.deepEqual((changed.forward(batch()) as Tensor).shape, [2, 4]);
    const left = around(refused());
    t.deepEqual((await lora.inject(left, { ...ALL, excludeModules: ["own"] })).adapted, ["plain"]);
    t.deepEqual(((await left.forward(batch())) as Tensor).shape, [2, 4]);
  });
}

test("a layer with adapters is copied after they are removed, or with one of two options: ownCopy", async (t) => {
  const message = /take its adapters off first, or choose one of targetModules and modulesToSave/;
  const model = around(new Doubled(4, 4));
  await lora.inject(model, { r: 2, targetModules: ["own"] });
  const copied = { r: 2, targetModules: ["plain"], modulesToSave: ["own"] };
  await t.throwsAsync(lora.inject(model, { ...copied, name: "second" }), { message });
  lora.unload(model);
  t.deepEqual((await lora.inject(model, copied)).adapted, ["plain"]);
  t.deepEqual((model.forward(batch()) as Tensor).shape, [2, 4]);
  const fresh = around(new Doubled(4, 4));
  t.deepEqual((await lora.inject(fresh, { r: 2, targetModules: ["own"] })).adapted, ["own"]);
});
