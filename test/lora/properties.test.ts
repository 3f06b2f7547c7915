/** The required properties of a low-rank layer, for every class and device, as one table. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import test from "ava";

import {
  lora,
  manualSeed,
  memory,
  nn,
  noGrad,
  optim,
  randn,
  scope,
  tensor,
  type Tensor,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices, type TestDevice } from "../devices.js";
import { subjects, type Base, type Layer, type Subject } from "./subjects.js";

/** A model around one layer, with harmless names that resemble an adapter's. */
class Around extends nn.Module {
  constructor(
    public layer: Base,
    public lora: nn.Linear,
    public weight_: nn.Linear,
    public bias_: nn.Linear,
  ) {
    super();
  }
  forward(x: Tensor): Tensor {
    return (this.layer.forward as (x: Tensor) => Tensor).call(this.layer, x);
  }
}

function around(subject: Subject, device: TestDevice): Around {
  const small = (): nn.Linear => new nn.Linear(3, 2, { device });
  return new Around(subject.base(device), small(), small(), small());
}

async function values(t: Tensor): Promise<number[]> {
  return [...((await t.data()) as Float32Array)];
}

function largest(list: number[]): number {
  return list.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
}

/** Returns the largest difference, relative to the largest value. */
function off(a: number[], b: number[]): number {
  return largest(a.map((v, i) => v - (b[i] as number))) / Math.max(largest(b), 1e-6);
}

/** Randomises both matrices, so that the low-rank path has an effect. */
function fill(layer: Layer, device: TestDevice): void {
  noGrad(() =>
    scope(() => {
      for (const { loraA, loraB, magnitude, loraBias } of layer.adapters.values()) {
        for (const part of [loraA, loraB, magnitude, loraBias]) part?.copy(randn(part.shape, { device }));
      }
    }),
  );
}

type Property = (subject: Subject, device: TestDevice) => Promise<boolean | string>;

/** f32: each output is a sum of at most 13 + 3 products, some 16 roundings of 6e-8 of the largest. */
const ROUNDING = 1e-5;

const run = (layer: nn.Module, x: Tensor): Tensor => (layer.forward as (x: Tensor) => Tensor).call(layer, x);

const properties: Record<string, Property> = {
  "is both its base layer and a LoRALayer": async (subject, device) => {
    const layer = subject.wrap(subject.base(device), 3, 4);
    const plain = new nn.Linear(2, 2, { device });
    return (
      layer instanceof subject.kind && layer instanceof lora.LoRALayer && !(plain instanceof lora.LoRALayer)
    );
  },
  "a fresh adapter changes no bit": async (subject, device) => {
    const base = subject.base(device);
    const x = subject.input(device);
    const before = await values(run(base, x));
    const fresh = await values(run(subject.wrap(base, 3, 4), x));
    return before.length > 0 && before.every((v, i) => v === fresh[i]);
  },
  "merged = unmerged": async (subject, device) => {
    const layer = subject.wrap(subject.base(device), 3, 4);
    fill(layer, device);
    const x = subject.input(device);
    const apart = await values(run(layer, x));
    const base = await values(layer.baseWeight);
    layer.merge();
    const together = await values(run(layer, x));
    const moved = off(await values(layer.weight), base) > 0.01;
    return moved && off(together, apart) <= ROUNDING;
  },
  "unmerge restores each bit of the base": async (subject, device) => {
    const layer = subject.wrap(subject.base(device), 3, 4);
    fill(layer, device);
    const before = await values(layer.weight);
    for (let i = 0; i < 20; i++) layer.merge().unmerge();
    const after = await values(layer.weight);
    return before.every((v, i) => Object.is(v, after[i]));
  },
  "merging twice equals merging once": async (subject, device) => {
    const layer = subject.wrap(subject.base(device), 3, 4);
    fill(layer, device);
    const once = await values(layer.merge().weight);
    const twice = await values(layer.merge().weight);
    return once.every((v, i) => Object.is(v, twice[i]));
  },
  "train() and eval() return this, and merge": async (subject, device) => {
    const layer = subject.wrap(subject.base(device), 3, 4);
    return layer.eval() === layer && layer.merged && layer.train() === layer && !layer.merged;
  },
  "a safe merge refuses NaN and infinity": async (subject, device) => {
    for (const bad of [NaN, Infinity]) {
      const model = around(subject, device);
      await lora.inject(model, { targetModules: ["layer"], r: 2, loraAlpha: 3, ...subject.fresh });
      const layer = model.layer as Layer;
      fill(layer, device);
      const { shape, size } = layer.loraB as Tensor;
      layer.loraB?.copy(tensor(new Float32Array(size).fill(bad), { shape, device }));
      const error: unknown = await lora.merge(model).catch((e: unknown) => e);
      if ((error as { code?: string }).code !== "ERR_NOT_FINITE" || layer.merged) return `accepted ${bad}`;
    }
    return true;
  },
  "disabled = base, enabled again = as before": async (subject, device) => {
    const model = around(subject, device);
    const x = subject.input(device);
    const base = await values(model.forward(x));
    await lora.inject(model, { targetModules: ["layer"], r: 2, loraAlpha: 3, ...subject.fresh });
    fill(model.layer as Layer, device);
    const adapted = await values(model.forward(x));
    const disabled = await values(lora.withoutAdapters(model, () => model.forward(x)));
    const again = await values(model.forward(x));
    await lora.merge(model);
    const disabledMerged = await values(lora.withoutAdapters(model, () => model.forward(x)));
    return (
      off(adapted, base) > 0.01 &&
      off(disabled, base) === 0 &&
      off(again, adapted) === 0 &&
      off(disabledMerged, base) === 0
    );
  },
  "three steps change only the adapter": async (subject, device) => {
    const model = around(subject, device);
    await lora.inject(model, { targetModules: ["layer"], r: 2, loraAlpha: 3, ...subject.fresh });
    fill(model.layer as Layer, device);
    const before = new Map<string, number[]>();
    for (const [name, t] of Object.entries(model.stateDict())) before.set(name, await values(t));
    const optimizer = new optim.AdamW(
      [...model.parameters()].filter((p) => p.requiresGrad),
      { lr: 0.1 },
    );
    for (let i = 0; i < 3; i++) {
      scope(() => {
        const y = model.forward(subject.input(device));
        y.mul(y).sum().backward();
      });
      optimizer.step();
      optimizer.zeroGrad();
    }
    for (const [name, t] of Object.entries(model.stateDict())) {
      const same = off(await values(t), before.get(name) as number[]) === 0;
      if (same === /\blora_/.test(name)) return `${name} ${same ? "did not change" : "changed"}`;
    }
    return true;
  },
  "save, load, save: the same bytes and outputs": async (subject, device) => {
    const dir = await mkdtemp(join(tmpdir(), "lowrank-"));
    try {
      const model = around(subject, device);
      await lora.inject(model, { targetModules: ["layer"], r: 2, loraAlpha: 3, ...subject.fresh });
      fill(model.layer as Layer, device);
      await lora.saveAdapter(model, join(dir, "a"));
      const x = subject.input(device);
      const before = await values(model.forward(x));
      lora.unload(model);
      await lora.loadAdapter(model, join(dir, "a"));
      const after = await values(model.forward(x));
      await lora.saveAdapter(model, join(dir, "b"));
      for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
        const [a, b] = await Promise.all(["a", "b"].map((d) => readFile(join(dir, d, file))));
        if (!a?.equals(b as Buffer)) return `${file} differs`;
      }
      return off(after, before) === 0;
    } finally {
      await rm(dir, { recursive: true });
    }
  },
  "unload restores the base and its number of tensors": async (subject, device) => {
    const model = around(subject, device);
    const x = subject.input(device);
    const base = await values(model.forward(x));
    const layer = model.layer;
    const { tensors } = await atRest(device);
    await lora.inject(model, { targetModules: ["layer"], r: 2, loraAlpha: 3, ...subject.fresh });
    lora.unload(model);
    return (
      model.layer === layer &&
      memory(device).tensors - tensors === 0 &&
      off(await values(model.forward(x)), base) === 0
    );
  },
  "two adapters: sum, switch, weights, delete": async (subject, device) => {
    const model = around(subject, device);
    const x = subject.input(device);
    const base = await values(model.forward(x));
    const two = { targetModules: ["layer"], ...subject.fresh };
    await lora.inject(model, { ...two, r: 2, loraAlpha: 3, name: "one" });
    await lora.inject(model, { ...two, r: 4, loraAlpha: 2, name: "two" });
    fill(model.layer as Layer, device);
    const outputs: Record<string, number[]> = {};
    for (const name of ["one", "two"]) {
      lora.setAdapter(model, name);
      outputs[name] = await values(model.forward(x));
    }
    const expected = (a: number, b: number): number[] =>
      base.map(
        (v, i) => v + a * ((outputs["one"] as number[])[i]! - v) + b * ((outputs["two"] as number[])[i]! - v),
      );
    lora.setAdapter(model, ["one", "two"]);
    // DoRA's adapters rescale in turn, so only the agreement of merged and unmerged output is checked.
    const together = async (a: number, b: number): Promise<number> => {
      const apart = await values(model.forward(x));
      if (!subject.fresh?.useDora) return off(apart, expected(a, b));
      await lora.merge(model);
      const merged = off(await values(model.forward(x)), apart);
      lora.unmerge(model);
      return merged;
    };
    const sum = await together(1, 1);
    lora.setAdapter(model, { one: 0.5, two: -2 });
    const weighted = await together(0.5, -2);
    lora.deleteAdapter(model, "one");
    lora.setAdapter(model, "two");
    const left = off(await values(model.forward(x)), outputs["two"] as number[]);
    const listed = lora.adapters(model).join() === "two";
    return sum <= ROUNDING && weighted <= ROUNDING && left === 0 && listed;
  },
  "initial values have the right distribution": async (subject, device) => {
    manualSeed(1);
    const layer = subject.wrap(subject.base(device), 40, 1);
    const { loraA, loraB } = layer as { loraA: Tensor; loraB: Tensor };
    const [drawn, zero] = subject.drawn === "A" ? [loraA, loraB] : [loraB, loraA];
    const fanIn = loraA.size / (loraA.shape[0] as number);
    const bound = 1 / Math.sqrt(fanIn);
    const uniform = (v: number): number => Math.min(Math.max((v + bound) / (2 * bound), 0), 1);
    const p = kolmogorov(await values(drawn), subject.drawn === "A" ? uniform : normalCdf);
    return (await values(zero)).every((v) => v === 0) && p > 0.01;
  },
  "requires_grad for every bias mode": async (subject, device) => {
    for (const mode of ["none", "all", "lora_only"] as const) {
      const model = around(subject, device);
      model.layer = subject.wrap(model.layer, 2, 3);
      lora.markOnlyLoraAsTrainable(model, mode);
      const names = [...model.namedParameters()]
        .filter(([, p]) => p.requiresGrad)
        .map(([n]) => n)
        .sort()
        .join();
      const { useDora, loraBias } = subject.fresh ?? {};
      const own = ["layer.lora_A", "layer.lora_B"];
      if (useDora) own.push("layer.lora_magnitude_vector");
      if (loraBias) own.push("layer.lora_B_bias");
      const biases = "bias" in model.layer ? ["layer.bias"] : [];
      const others = ["lora.bias", "weight_.bias", "bias_.bias"];
      const expected = [...own, ...(mode === "none" ? [] : biases), ...(mode === "all" ? others : [])]
        .sort()
        .join();
      if (names !== expected) return `${mode}: ${names}`;
      if (Object.keys(lora.loraStateDict(model, mode)).sort().join() !== expected)
        return `${mode}: loraStateDict`;
    }
    return true;
  },
  "a state taken while merged is the base's": async (subject, device) => {
    const layer = subject.wrap(subject.base(device), 3, 4);
    fill(layer, device);
    const before = await values(layer.weight);
    layer.eval();
    const state = layer.stateDict();
    const saved = await values(state["weight"] as Tensor);
    const other = subject.wrap(subject.base(device), 3, 4).eval();
    other.loadStateDict(state);
    const x = subject.input(device);
    const drift = off(await values(run(other, x)), await values(run(layer, x)));
    return off(saved, before) === 0 && drift <= ROUNDING;
  },
  "r = 0 is the plain layer, and trains": async (subject, device) => {
    const layer = subject.bare(device);
    return layer.weight.requiresGrad && layer.loraA === undefined && !layer.eval().merged;
  },
};

/** Returns the p-value of the Kolmogorov–Smirnov test of `sample` against a distribution. */
function kolmogorov(sample: number[], cdf: (v: number) => number): number {
  const sorted = [...sample].sort((a, b) => a - b);
  const n = sorted.length;
  const d = sorted.reduce(
    (m, v, i) => Math.max(m, Math.abs(cdf(v) - i / n), Math.abs(cdf(v) - (i + 1) / n)),
    0,
  );
  const t = (Math.sqrt(n) + 0.12 + 0.11 / Math.sqrt(n)) * d;
  // For a small t the series needs many terms, and p is 1 to five digits.
  if (t < 0.35) return 1;
  let p = 0;
  for (let k = 1; k < 101; k++) p += 2 * (k % 2 === 1 ? 1 : -1) * Math.exp(-2 * k * k * t * t);
  return Math.min(Math.max(p, 0), 1);
}

function normalCdf(v: number): number {
  // Abramowitz and Stegun 26.2.17, within 7.5e-8.
  const t = 1 / (1 + 0.2316419 * Math.abs(v));
  const tail =
    (Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI)) *
    t *
    (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return v > 0 ? 1 - tail : tail;
}

/** By property, then device and class. */
const table = new Map<string, Map<string, boolean>>();
for (const device of testDevices()) {
  for (const subject of subjects) {
    for (const [property, holds] of Object.entries(properties)) {
      test.serial(`${subject.name} on ${device}: ${property}`, async (t) => {
        manualSeed(7);
        const result = await holds(subject, device);
        const row = table.get(property) ?? new Map<string, boolean>();
        table.set(property, row.set(`${device} ${subject.name}`, result === true));
        t.is(result, true);
      });
    }
  }
}
test.after.always("the table", (t) => {
  const columns = testDevices().flatMap((device) => subjects.map(({ name }) => `${device} ${name}`));
  const lines = [...table].map(([property, row]) => {
    const marks = columns.map((column, i) => {
      const mark = row.has(column) ? (row.get(column) ? "yes" : "NO") : "-";
      return mark.padStart(String(i + 1).length).padEnd(4);
    });
    return `${marks.join(" ")} ${property}`;
  });
  const legend = columns.map((column, i) => `${i + 1}: ${column}`).join("; ");
  const head = columns.map((_, i) => String(i + 1).padEnd(4)).join(" ");
  t.log(`\n${legend}\n${head}\n${lines.join("\n")}`);
});
