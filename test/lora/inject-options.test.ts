/** The layers that the options of inject select, with their rank and scaling; and refusals, which change nothing. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { lora, manualSeed, nn, randn, scope, type Tensor } from "../../src/index.js";
import { temporary } from "../hashed.js";

class Attention extends nn.Module {
  q_proj = new nn.Linear(4, 4);
  v_proj = new nn.Linear(4, 4, { bias: false });
  override forward(x: Tensor): Tensor {
    return this.v_proj.forward(this.q_proj.forward(x));
  }
}

class Block extends nn.Module {
  attn = new Attention();
  experts = [new Attention()];
  override forward(x: Tensor): Tensor {
    return this.attn.forward(x);
  }
}

class Body extends nn.Module {
  layers = [new Block(), new Block(), new Block()];
  embed = new nn.Embedding(5, 4);
  override forward(ids: Tensor): Tensor {
    return this.layers.reduce((x, block) => block.forward(x), this.embed.forward(ids));
  }
}

class Model extends nn.Module {
  taskType?: string;
  model = new Body();
  score = new nn.Linear(4, 2);
  override forward(ids: Tensor): Tensor {
    return this.score.forward(this.model.forward(ids));
  }
}

const CHOOSES: [what: string, options: lora.InjectOptions, paths: string[]][] = [
  [
    "the end of a path",
    { targetModules: ["attn.q_proj"] },
    [0, 1, 2].map((i) => `model.layers.${i}.attn.q_proj`),
  ],
  ["a full path", { targetModules: ["score"] }, ["score"]],
  [
    "a layer by number, the first number in the path",
    { targetModules: ["q_proj"], layersToTransform: 1 },
    ["model.layers.1.attn.q_proj", "model.layers.1.experts.0.q_proj"],
  ],
  [
    "layers by number in a named list",
    {
      targetModules: ["v_proj"],
      layersToTransform: [0],
      layersPattern: ["experts"],
      excludeModules: String.raw`.*\.[12]\..*`,
    },
    ["model.layers.0.experts.0.v_proj"],
  ],
  [
    "a full path, for any layer number",
    { targetModules: ["model.layers.2.attn.q_proj", "v_proj"], layersToTransform: [0] },
    ["model.layers.0.attn.v_proj", "model.layers.0.experts.0.v_proj", "model.layers.2.attn.q_proj"],
  ],
  [
    "all layers except the excluded ones",
    {
      targetModules: "all-linear",
      excludeModules: ["model.layers.0.attn.q_proj", "v_proj", "experts.0.q_proj"],
    },
    ["model.layers.1.attn.q_proj", "model.layers.2.attn.q_proj", "score"],
  ],
  [
    "all linears in any case",
    { targetModules: "ALL-linear", excludeModules: ["q_proj", "v_proj"] },
    ["score"],
  ],
];

for (const [what, options, paths] of CHOOSES) {
  test(`targets are ${what}`, async (t) => {
    const model = new Model();
    const { adapted } = await lora.inject(model, { r: 2, ...options });
    t.deepEqual([...adapted].sort(), [...paths].sort());
    model.dispose();
  });
}

test("a classifier is trained in full, and its head is no target", async (t) => {
  const model = new Model();
  const { adapted } = await lora.inject(model, { r: 2, targetModules: "all-linear", taskType: "SEQ_CLS" });
  t.is(adapted.length, 12);
  t.false(adapted.includes("score"));
  t.true(model.score.weight.requiresGrad);
  model.dispose();
});

test("patterns give ranks and alphas by layer", async (t) => {
  const model = new Model();
  await lora.inject(model, {
    r: 2,
    loraAlpha: 6,
    useRslora: true,
    targetModules: ["q_proj", "v_proj"],
    excludeModules: ".*experts.*",
    rankPattern: { [String.raw`layers\.0\.attn\.q_proj`]: 4, q_proj: 3 },
    alphaPattern: { "v_proj|q": 12 },
  });
  const of = (i: number, name: "q_proj" | "v_proj"): lora.Linear =>
    (model.model.layers[i] as Block).attn[name] as lora.Linear;
  t.deepEqual([of(0, "q_proj").r, of(1, "q_proj").r, of(1, "v_proj").r], [4, 3, 2]);
  t.is(of(0, "q_proj").scaling, 3);
  t.is(of(2, "v_proj").scaling, 12 / Math.sqrt(2));
  t.deepEqual(of(0, "q_proj").loraB?.shape, [4, 4]);
  model.dispose();
});

const REFUSED: [options: object, code: string, message: RegExp][] = [
  [{ targetModules: "q(" }, "ERR_OPTION", /targetModules: "q\(" is no regular expression/],
  [{ targetModules: ["q_proj"], excludeModules: "q++" }, "ERR_OPTION", /possessive/],
  [{ targetModules: ["q_proj"], rankPattern: { "(": 3 } }, "ERR_OPTION", /rankPattern: "\("/],
  [
    { targetModules: ["q_proj"], alphaPattern: { q: "x" } },
    "ERR_OPTION",
    /alphaPattern must be numbers by pattern/,
  ],
  [{ targetModules: ["q_proj"], rankPattern: { q: 0 } }, "ERR_OPTION", /rankPattern must be ranks/],
  [{ targetModules: [] }, "ERR_NO_TARGETS", /there are: embed, q_proj, score, v_proj/],
  [{ targetModules: ["nothing"] }, "ERR_NO_TARGETS", /\[nothing\].*there are: embed, q_proj, score, v_proj/],
  [{ targetModules: ["q_proj"], layersToTransform: [7] }, "ERR_NO_TARGETS", /layersToTransform \[7\]/],
  [
    { targetModules: ".*q_proj", layersToTransform: [0] },
    "ERR_OPTION",
    /a pattern already selects the layers/,
  ],
  [
    { targetModules: ["q_proj"], layersPattern: "layers" },
    "ERR_OPTION",
    /layersPattern without layersToTransform/,
  ],
  [{ targetModules: ["q_proj"], layersToTransform: -1 }, "ERR_OPTION", /number of a layer/],
  [{ targetModules: ["q_proj"], modulesToSave: ["haed"] }, "ERR_NO_TARGETS", /modulesToSave: "haed"/],
  [{ targetModules: 3 }, "ERR_OPTION", /targetModules must be a list of names or a pattern, got 3/],
  [{ r: 0 }, "ERR_OPTION", /r must be a whole number/],
  [{ loraDropout: 2 }, "ERR_OPTION", /loraDropout must be a probability/],
  [{ bias: "some" }, "ERR_OPTION", /none, all, lora_only/],
  [{ targetModul: ["q_proj"] }, "ERR_OPTION", /no option targetModul/],
  ...["../other", "a/b", "a\\b", "c:", "..", ""].map((name): (typeof REFUSED)[number] => [
    { targetModules: ["q_proj"], name },
    "ERR_OPTION",
    /name must be a name that a folder can have/,
  ]),
];

for (const [options, code, message] of REFUSED) {
  test(`${JSON.stringify(options)} is refused, with nothing changed`, async (t) => {
    const model = new Model();
    const before = Object.entries(model.stateDict());
    await t.throwsAsync(lora.inject(model, options), { code, message });
    t.deepEqual(lora.adapters(model), []);
    const after = Object.entries(model.stateDict());
    t.deepEqual(
      after.map(([name, one]) => [name, one.id, one.requiresGrad]),
      before.map(([name, one]) => [name, one.id, true]),
    );
    model.dispose();
  });
}

test("a model that is itself a layer is refused with a remedy, and not changed", async (t) => {
  for (const targetModules of [".*", "all-linear"]) {
    const model = new nn.Linear(3, 3);
    const message = /there are: none; the model is a layer itself.* nn\.Sequential/;
    await t.throwsAsync(lora.inject(model, { targetModules }), { code: "ERR_NO_TARGETS", message });
    t.true(model.weight.requiresGrad);
    const around = new nn.Sequential(model);
    t.deepEqual((await lora.inject(around, { targetModules: "all-linear" })).adapted, ["0"]);
  }
});

test("a bias of B is merged into the layer's bias, and is refused for a layer without one", async (t) => {
  for (const bias of [true, false]) {
    const model = new nn.Sequential(new nn.Linear(3, 3, { bias }));
    await lora.inject(model, { r: 1, targetModules: ["0"], loraBias: true });
    const before = Object.keys(model.stateDict());
    if (bias) {
      await lora.mergeAndUnload(model);
      t.deepEqual(Object.keys(model.stateDict()), ["0.weight", "0.bias"]);
      continue;
    }
    const message =
      /^mergeAndUnload: 0 has no bias, so the bias of the adapter "default" \(loraBias\) cannot be merged/;
    await t.throwsAsync(lora.mergeAndUnload(model), { code: "ERR_OPTION", message });
    t.deepEqual(Object.keys(model.stateDict()), before);
    t.deepEqual(lora.adapters(model), ["default"]);
  }
});

test("two adapters with copies of the same module cannot be active together", async (t) => {
  const model = new Model();
  const options = { r: 2, targetModules: ["q_proj"], modulesToSave: ["score"] };
  await lora.inject(model, { ...options, name: "a" });
  const message =
    /"a" and "b": several active adapters .*a trained copy of the same module or bias \(score\)/;
  await t.throwsAsync(lora.inject(model, { ...options, name: "b", active: true }), {
    code: "ERR_OPTION",
    message,
  });
  t.deepEqual(lora.adapters(model), ["a"]);
  await lora.inject(model, { ...options, name: "b" });
  t.throws(() => lora.setAdapter(model, ["a", "b"]), { code: "ERR_OPTION", message });
  lora.setAdapter(model, "b");
  model.dispose();
});

test("an adapter of a layer and an adapter with a copy of that layer do not affect each other", async (t) => {
  const model = new Model();
  await lora.inject(model, { r: 2, targetModules: ["q_proj"], modulesToSave: ["score"], name: "whole" });
  const copy = model.score;
  await lora.inject(model, { r: 2, targetModules: ["score"], name: "low" });
  t.is(model.score, copy);
  lora.setAdapter(model, "low");
  t.true(model.score instanceof lora.Linear);
  lora.deleteAdapter(model, "low");
  lora.setAdapter(model, "whole");
  t.is(model.score, copy);
  lora.unload(model);
  t.is(model.score.constructor, nn.Linear);
  model.dispose();
});

test("the actual layout of the weights is written, whatever the options say", async (t) => {
  const written = async (fanInFanOut: boolean, options: lora.InjectOptions): Promise<unknown> => {
    const model = new nn.Sequential(new nn.Linear(3, 4, { fanInFanOut, device: "cpu" }));
    await lora.inject(model, { r: 2, targetModules: "all-linear", ...options });
    const folder = temporary();
    await lora.saveAdapter(model, folder);
    const text = readFileSync(join(folder, "adapter_config.json"), "utf8");
    return (JSON.parse(text) as Record<string, unknown>)["fan_in_fan_out"];
  };
  t.is(await written(true, {}), true);
  t.is(await written(true, { fanInFanOut: false }), true);
  t.is(await written(false, { fanInFanOut: true }), false);
  t.is(await written(false, { fanInFanOut: "auto" }), false);
});

/** Returns √n times the largest distance between the distribution of `values` and the standard normal one. */
function kolmogorov(values: readonly number[]): number {
  // Abramowitz and Stegun 7.1.26, to 1.5e-7.
  const erf = (x: number): number => {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const tail =
      ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return Math.sign(x) * (1 - tail * Math.exp(-x * x));
  };
  const sorted = [...values].sort((a, b) => a - b);
  const n = sorted.length;
  const distances = sorted.map((value, i) => {
    const below = (1 + erf(value / Math.SQRT2)) / 2;
    return Math.max(below - i / n, (i + 1) / n - below);
  });
  return Math.max(...distances) * Math.sqrt(n);
}

// Serial: concurrent tests would draw from the same random stream.
test.serial(
  "gaussian is N(0, 1/r²) with B zero; false draws both; orthogonal changes only rounding",
  async (t) => {
    manualSeed(5);
    const started = async (init: lora.InitLoraWeights): Promise<[number[], number[], number[]]> => {
      const model = new nn.Sequential(new nn.Linear(300, 40, { device: "cpu" }));
      const x = randn([4, 300], { device: "cpu" });
      const output = async (): Promise<Float32Array> =>
        (await scope(() => model.forward(x)).data()) as Float32Array;
      const before = await output();
      await lora.inject(model, { r: 4, targetModules: "all-linear", initLoraWeights: init });
      const layer = [...model.namedModules()].find(([, one]) => one instanceof lora.Linear)?.[1];
      const { loraA, loraB } = layer as lora.Linear;
      const moved = (await output()).map((value, i) => value - (before[i] as number));
      const values = async (one: Tensor | undefined): Promise<number[]> => [...((await one?.data()) ?? [])];
      return [await values(loraA), await values(loraB), [...moved]];
    };
    const largest = (values: readonly number[]): number => Math.max(...values.map(Math.abs));
    const [a, b, moved] = await started("gaussian");
    // One random sample in a hundred exceeds 1.63.
    t.true(kolmogorov(a.map((value) => value * 4)) < 1.63);
    t.is(largest(b), 0);
    t.is(largest(moved), 0);
    const [, drawnB, drawn] = await started(false);
    t.true(largest(drawnB) > 0.4 && largest(drawnB) <= 0.5);
    t.true(largest(drawn) > 0.01);
    const [, orthogonalB, turned] = await started("orthogonal");
    t.true(largest(orthogonalB) > 0.01);
    t.true(largest(turned) < 1e-5);
  },
);
