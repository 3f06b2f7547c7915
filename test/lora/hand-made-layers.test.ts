/** Layers constructed by hand, in unusual positions and on disk: file contents, refusals, and shared weights. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { lora, nn, noGrad, randn, safetensors, scope, type Tensor } from "../../src/index.js";
import { temporary } from "../hashed.js";
import { apart } from "./adapted.js";

const device = { device: "cpu" } as const;

class Pair extends nn.Module {
  constructor(
    public a: nn.Linear,
    public b: nn.Linear,
  ) {
    super();
  }
  forward(x: Tensor): Tensor {
    return this.b.forward(this.a.forward(x));
  }
}

const plain = (): nn.Linear => new nn.Linear(6, 6, device);
const low = (options: lora.LoRALinearOptions = {}): lora.Linear =>
  new lora.Linear(6, 6, { r: 2, ...options, ...device });
const x = randn([3, 6], device);

function shake(model: nn.Module): void {
  noGrad(() =>
    scope(() => {
      for (const [, layer] of model.namedModules()) {
        if (!(layer instanceof lora.LoRALayer)) continue;
        for (const { loraA, loraB } of layer.adapters.values())
          for (const one of [loraA, loraB]) one.copy(randn(one.shape, device).mul(0.3));
      }
    }),
  );
}

const values = async (one: Tensor): Promise<Float32Array> => (await one.data()) as Float32Array;

function config(dir: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(dir, "adapter_config.json"), "utf8")) as Record<string, unknown>;
}

test("a layer in two positions is unloaded in both", async (t) => {
  const layer = low();
  const model = new Pair(layer, layer);
  shake(model);
  lora.unload(model);
  t.is(model.a, model.b);
  t.is(model.a.constructor, nn.Linear);
  t.is(model.a.weight, layer.weight);
  await lora.inject(model, { targetModules: ["a"] });
  t.true(model.a === model.b && model.a instanceof lora.Linear);
});

test("a layer added after inject joins its adapter, and the file stores its rank and alpha", async (t) => {
  const model = new Pair(plain(), plain());
  await lora.inject(model, { r: 2, loraAlpha: 8, targetModules: ["a"] });
  model.b = low({ r: 3, loraAlpha: 5 });
  shake(model);
  const before = await values(model.forward(x));
  const dir = temporary();
  await lora.saveAdapter(model, dir);
  t.like(config(dir), { target_modules: ["a", "b"], r: 2, rank_pattern: { b: 3 }, alpha_pattern: { b: 5 } });
  lora.unload(model);
  await lora.loadAdapter(model, dir);
  t.true(apart(await values(model.forward(x)), before) < 1e-6);
});

test("options that PEFT stores once for all layers are refused by path if they differ", async (t) => {
  const cases: [lora.LoRALinearOptions, RegExp][] = [
    [{ useDora: true }, /one useDora for all layers, and a has true and b false/],
    [{ loraDropout: 0.5 }, /one loraDropout for all layers, and a has 0.5 and b 0/],
    [{ loraBias: true }, /one loraBias for all layers, and a has true and b false/],
  ];
  for (const [options, message] of cases) {
    const model = new Pair(low(options), low());
    await t.throwsAsync(lora.saveAdapter(model, temporary()), { code: "ERR_OPTION", message });
  }
  await t.throwsAsync(lora.saveAdapter(low(), temporary()), {
    code: "ERR_OPTION",
    message: /itself a low-rank layer/,
  });
});

test("biases marked as trainable are saved with the layers, and loaded as the adapter's own", async (t) => {
  const model = new Pair(low(), plain());
  const base = model.a.bias as Tensor;
  const copy = new nn.Linear(6, 6, { weight: model.a.weight, biasValues: randn([6], device) });
  lora.markOnlyLoraAsTrainable(model, "lora_only");
  shake(model);
  const dir = temporary();
  await lora.saveAdapter(model, dir);
  t.is(config(dir)["bias"], "lora_only");
  const other = new Pair(copy, model.b);
  await lora.loadAdapter(other, dir);
  t.true(apart(await values(other.forward(x)), await values(model.forward(x))) < 1e-6);
  t.deepEqual(await values(other.a.bias as Tensor), await values(base));
});

test("a loralib file is loaded into a mixed model, with the slices that its layers enable", async (t) => {
  const fused = { r: 2, loraAlpha: 3, enableLora: [true, false, true], ...device };
  const made = new nn.Sequential(
    new lora.MergedLinear(6, 9, fused),
    new lora.Linear(9, 6, { r: 3, loraAlpha: 3, ...device }),
  );
  shake(made);
  const file = join(temporary(), "l.safetensors");
  await safetensors.save(file, lora.loraStateDict(made));
  const before = await values(made.forward(x));
  shake(made);
  t.true(apart(await values(made.forward(x)), before) > 0.01);
  await lora.hotSwap(made, file);
  t.true(apart(await values(made.forward(x)), before) < 1e-6);
  lora.unload(made);
  const [first, second] = made.layers as [nn.Linear, nn.Linear];
  const { enableLora } = fused;
  const bare = new nn.Sequential(lora.MergedLinear.fromBase(first, { enableLora }), second);
  await t.throwsAsync(lora.loadAdapter(bare, file), { code: "ERR_OPTION", message: /give loraAlpha/ });
  await lora.loadAdapter(bare, file, { loraAlpha: 3 });
  t.true(apart(await values(bare.forward(x)), before) < 1e-6);
});

test('targets "peft", broken patterns, and unsuitable files are explicit errors', async (t) => {
  const model = new Pair(low(), plain());
  await t.throwsAsync(lora.inject(model, { name: "b", targetModules: "peft" }), {
    code: "ERR_NO_TARGETS",
    message: /PEFT's table by family.*there are: a, b/,
  });
  await t.throwsAsync(lora.inject(model, { name: "b", targetModules: ["b"], r: 1e12 }), {
    code: "ERR_OUT_OF_MEMORY",
  });
  t.is(model.b.constructor, nn.Linear);
  const dir = temporary();
  await lora.saveAdapter(model, dir);
  writeFileSync(
    join(dir, "adapter_config.json"),
    JSON.stringify({ ...config(dir), rank_pattern: { "a(": 2 } }),
  );
  await t.throwsAsync(lora.loadAdapter(model, dir, { name: "b" }), {
    code: "ERR_FILE_FORMAT",
    message: /adapter_config\.json: rank_pattern: "a\("/,
  });
  await t.throwsAsync(lora.inject(model, { targetModules: ["b"] }), {
    code: "ERR_ADAPTER_EXISTS",
    message: /made by hand \(a\).*another name/,
  });
});
