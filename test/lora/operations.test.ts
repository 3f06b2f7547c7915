/** Operations on existing adapters: adding, swapping, reporting, and errors for bad input. */
import { join } from "node:path";

import test from "ava";
import {
  loadModel,
  lora,
  memory,
  nn,
  noGrad,
  randn,
  scope,
  synchronize,
  zeros,
  type Tensor,
} from "../../src/index.js";
import { collectAdapterState } from "../../src/lora/formats/state.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { adapted, apart, attention, base, logits } from "./adapted.js";

const wider = { r: 3, loraAlpha: 4, targetModules: ["v_proj", "down_proj", "embed_tokens"], useRslora: true };

for (const device of testDevices()) {
  test(`on ${device} linear and cat are the weighted sum of adapters`, async (t) => {
    const model = await adapted(device, { a: attention, b: { ...attention, loraAlpha: 3 }, c: wider });
    const cases = [
      ["linear", { a: 0.7, b: -1.3 }],
      ["linear", { b: -0.5 }],
      ["cat", { a: 0.7, b: -1.3, c: 2 }],
    ] as const;
    for (const [i, [combination, weights]] of cases.entries()) {
      lora.setAdapter(model, weights);
      const sum = await logits(model);
      await lora.addWeightedAdapter(model, `sum ${i}`, weights, { combination });
      t.deepEqual(
        lora.status(model).active.map(({ name }) => name),
        Object.keys(weights),
        "it counts when chosen",
      );
      lora.setAdapter(model, `sum ${i}`);
      // The order of summation over the ranks differs.
      t.true(apart(await logits(model), sum) < 1e-5, combination);

      const folder = temporary();
      await lora.saveAdapter(model, folder, { name: `sum ${i}` });
      await lora.loadAdapter(model, join(folder, `sum ${i}`), { name: `sum ${i} read` });
      lora.setAdapter(model, `sum ${i} read`);
      t.true(apart(await logits(model), sum) < 1e-5, `${combination}, saved and loaded`);
    }
    model.dispose();
  });

  test(`on ${device} a sum truncated to its own rank is exact, and to a smaller rank an approximation`, async (t) => {
    const model = await adapted(device, { a: attention, b: { ...attention, loraAlpha: 3 }, c: wider });
    const weights = { a: 0.7, b: -1.3, c: 2 };
    lora.setAdapter(model, weights);
    const sum = await logits(model);
    await lora.addWeightedAdapter(model, "all", weights, { combination: "svd", rank: 7 });
    lora.setAdapter(model, "all");
    t.true(apart(await logits(model), sum) < 1e-5);
    for (const combination of [
      "svd",
      "cat",
      "ties_svd",
      "dare_ties_svd",
      "dare_linear_svd",
      "magnitude_prune_svd",
    ] as const) {
      await lora.addWeightedAdapter(model, "cut", weights, { combination, rank: 2, density: 1 });
      const ranks = (await lora.report(model))
        .filter(({ adapter }) => adapter === "cut")
        .map(({ rank }) => rank);
      t.deepEqual([...new Set(ranks)], [2]);
      lora.setAdapter(model, "cut");
      const [cut, off] = [await logits(model), apart(await logits(model), sum)];
      t.true(cut.every(Number.isFinite) && off > 1e-5, combination);
      lora.deleteAdapter(model, "cut");
    }
    model.dispose();
  });

  test(`on ${device} adapters of a merged layer are added by slice, or over the whole layer if one covers it`, async (t) => {
    class Fused extends nn.Module {
      qkv: nn.Linear = lora.MergedLinear.fromBase(new nn.Linear(6, 9, { device }), {
        enableLora: [true, false, true],
        mergeWeights: false,
      });
      forward(x: Tensor): Tensor {
        return this.qkv.forward(x);
      }
    }
    const model = new Fused();
    const x = randn([4, 6], { device });
    const output = async (): Promise<Float32Array> =>
      (await noGrad(() => model.forward(x)).data()) as Float32Array;
    for (const name of ["a", "b"]) {
      await lora.inject(model, { r: 2, loraAlpha: 3, targetModules: ["qkv"], name });
      for (const [, one] of collectAdapterState(model, name))
        noGrad(() => one.copy(randn(one.shape, { device })));
    }
    const dir = temporary();
    await lora.saveAdapter(model, dir, { name: "b" });
    await lora.loadAdapter(model, join(dir, "b"), { name: "plain" });
    const cases: Record<string, number>[] = [
      { a: 0.5, b: -2 },
      { a: 0.5, plain: -2 },
    ];
    for (const [i, weights] of cases.entries()) {
      for (const combination of ["cat", "svd"] as const) {
        lora.setAdapter(model, weights);
        const sum = await output();
        const name = `${combination} ${i}`;
        await lora.addWeightedAdapter(model, name, weights, {
          combination,
          ...(combination === "svd" ? { rank: 8 } : {}),
        });
        lora.setAdapter(model, name);
        t.true(apart(await output(), sum) < 1e-5, name);
      }
    }
  });

  test(`on ${device} adapters of a convolution are added, and truncated to the rank that its outputs allow`, async (t) => {
    class Net extends nn.Module {
      conv: nn.Conv2d = new nn.Conv2d(4, 3, [3, 2], { device });
      grouped: nn.Conv2d = new nn.Conv2d(4, 6, 3, { groups: 2, device });
      forward(): void {}
    }
    const model = new Net();
    for (const [name, r] of [
      ["a", 2],
      ["b", 4],
    ] as const) {
      await lora.inject(model, { r, loraAlpha: 3, targetModules: ["conv", "grouped"], name });
      for (const [, one] of collectAdapterState(model, name))
        noGrad(() => one.copy(randn(one.shape, { device })));
    }
    const delta = async (path: "conv" | "grouped", name: string): Promise<Float32Array> =>
      (await noGrad(() => (model[path] as unknown as lora.Conv2d).deltaWeight(name)).data()) as Float32Array;
    await lora.addWeightedAdapter(model, "cat", { a: 2, b: -1 }, { combination: "cat" });
    await lora.addWeightedAdapter(model, "svd", { a: 2, b: -1 }, { combination: "svd", rank: 6 });
    for (const path of ["conv", "grouped"] as const) {
      const [a, b] = [await delta(path, "a"), await delta(path, "b")];
      const sum = a.map((v, i) => 2 * v - (b[i] as number));
      t.true(apart(sum, await delta(path, "cat")) < 1e-5, path);
      t.true(apart(sum, await delta(path, "svd")) < 1e-5, path);
    }
    const norms = (await lora.report(model)).filter(({ adapter }) => adapter === "cat");
    for (const { path, normDelta } of norms) {
      const squares = (await delta(path as "conv", "cat")).reduce((n, v) => n + v * v, 0);
      t.true(Math.abs(normDelta / Math.sqrt(squares) - 1) < 1e-4, path);
    }
  });

  test(`on ${device} elementwise combinations keep the rank, and their masks follow the seed`, async (t) => {
    const model = await adapted(device, { a: attention, b: attention });
    const weights = { a: 0.5, b: 1.5 };
    for (const combination of ["ties", "dare_linear", "dare_ties", "magnitude_prune"] as const) {
      const outputs: Float32Array[] = [];
      for (const seed of [1, 1, 2]) {
        await lora.addWeightedAdapter(model, "new", weights, { combination, density: 0.5, seed });
        t.true((await lora.report(model)).every(({ adapter, rank }) => adapter !== "new" || rank === 2));
        lora.setAdapter(model, "new");
        outputs.push(await logits(model));
        lora.deleteAdapter(model, "new");
      }
      const [first, again, other] = outputs as [Float32Array, Float32Array, Float32Array];
      t.deepEqual(first, again);
      t.is(apart(first, other) > 0, combination.startsWith("dare"), "only dare draws");
    }
    model.dispose();
  });

  test(`on ${device} modules and biases that one adapter trained are kept in the combination`, async (t) => {
    const model = await adapted(device, {
      a: { ...attention, modulesToSave: ["lm_head"] },
      b: attention,
    });
    lora.setAdapter(model, { a: 1, b: 1 });
    const sum = await logits(model);
    await lora.addWeightedAdapter(model, "sum", { a: 1, b: 1 });
    lora.setAdapter(model, "sum");
    t.true(apart(await logits(model), sum) < 1e-5);
    await t.throwsAsync(lora.addWeightedAdapter(model, "more", { a: 1, sum: 1 }, { combination: "cat" }), {
      code: "ERR_OPTION",
      message: /the same module or bias \("a" and "sum": lm_head\)/,
    });
    model.dispose();
  });

  test(`on ${device} a report has each layer's rank, scaling and norms`, async (t) => {
    const model = await adapted(device, { a: attention, c: wider });
    lora.setAdapter(model, { c: 0.5 });
    const rows = await lora.report(model);
    t.is(rows.length, 2 * (2 + 2) + 1);
    for (const { path, adapter, rank, scaling, normA, normB, normDelta, weight, trainable } of rows) {
      const layer = [...model.namedModules()].find(([one]) => one === path)?.[1] as lora.Linear;
      const { loraA, loraB } = layer.adapters.get(adapter) as lora.Adapter;
      const norm = async (of: () => typeof loraA): Promise<number> => {
        const values = (await noGrad(of).data()) as Float32Array;
        return Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));
      };
      const near = (a: number, b: number): boolean => Math.abs(a - b) < 1e-5 * b;
      t.true(near(normA, await norm(() => loraA)), path);
      t.true(near(normB, await norm(() => loraB)), path);
      t.true(near(normDelta, await norm(() => layer.deltaWeight(adapter))), path);
      t.is(rank, adapter === "a" ? 2 : 3);
      t.is(scaling, adapter === "a" ? 3 : 4 / Math.sqrt(3));
      t.is(weight, adapter === "c" ? 0.5 : 0);
      t.true(trainable);
    }
    const { adapters, active, trainable, merged, layers, trainableElements } = lora.status(model);
    t.deepEqual(
      { adapters, active, trainable, merged, layers },
      {
        adapters: ["a", "c"],
        active: [{ name: "c", weight: 0.5 }],
        trainable: ["a", "c"],
        merged: false,
        layers: 7,
      },
    );
    t.true(trainableElements > 0);
    await lora.merge(model);
    t.is(lora.status(model).merged, "some");
    t.true(
      (await lora.report(model)).filter(({ adapter }) => adapter === "a").every(({ merged: one }) => !one),
    );
    model.dispose();
  });

  test.serial(`on ${device} a hot swap writes another adapter into the existing tensors`, async (t) => {
    const folders: Record<string, string> = {};
    const outputs: Record<string, Float32Array> = {};
    const options: Record<string, lora.InjectOptions> = {
      same: { ...attention, loraAlpha: 5, loraDropout: 0.1 },
      narrower: {
        ...attention,
        r: 1,
        loraAlpha: 7,
        useRslora: true,
        rankPattern: { "layers.0.self_attn.q_proj": 2 },
      },
      larger: { ...attention, r: 5 },
      others: { ...attention, targetModules: ["q_proj"] },
      sick: attention,
    };
    for (const [name, one] of Object.entries(options)) {
      const model = await adapted(device, { default: one });
      if (name === "sick") {
        const [, first] = [...collectAdapterState(model, "default")][0] as [string, ReturnType<typeof zeros>];
        noGrad(() => scope(() => first.copy(zeros(first.shape, { device }).add(NaN))));
      } else outputs[name] = await logits(model);
      folders[name] = temporary();
      await lora.saveAdapter(model, folders[name]);
      model.dispose();
    }
    const model = await adapted(device, { first: attention });
    const [tensors, before] = [[...collectAdapterState(model, "first").values()], await logits(model)];
    const { live } = await atRest(device);
    const broken = {
      larger: ["ERR_SHAPE_MISMATCH", /q_proj\.lora_A\.weight.*rank is 5.*replaces is 2/s],
      others: ["ERR_UNMATCHED_KEY", /missing: .*v_proj/],
      sick: ["ERR_NOT_FINITE", /q_proj\.lora_A\.weight holds NaN/],
    } as const;
    for (const [name, [code, message]] of Object.entries(broken)) {
      await t.throwsAsync(lora.hotSwap(model, folders[name] as string, { name: "first" }), { code, message });
      t.deepEqual(await logits(model), before, "nothing is changed");
    }
    await t.throwsAsync(lora.hotSwap(model, folders["same"] as string, { name: "second" }), {
      code: "ERR_UNKNOWN_ADAPTER",
      message: /loaded: "first"/,
    });
    for (const name of ["same", "narrower", "same"]) {
      await lora.hotSwap(model, folders[name] as string, { name: "first" });
      t.true(apart(await logits(model), outputs[name] as Float32Array) < 1e-6, name);
      await synchronize(device);
      t.is(memory(device).live, live);
      t.deepEqual([...collectAdapterState(model, "first").values()], tensors);
      const again = temporary();
      await lora.saveAdapter(model, again, { name: "first" });
      const reread = await loadModel<"causal-lm">(base, { device });
      await lora.loadAdapter(reread, join(again, "first"));
      t.true(apart(await logits(reread), outputs[name] as Float32Array) < 1e-6, `${name}, saved after`);
      reread.dispose();
    }
    await lora.merge(model);
    await t.throwsAsync(lora.hotSwap(model, folders["same"] as string, { name: "first" }), {
      code: "ERR_OPTION",
      message: /unmerge first/,
    });
    model.dispose();
  });

  test(`on ${device} a safe merge refuses results that are not finite, and changes nothing`, async (t) => {
    const f16 = new nn.Linear(2, 2, { device });
    noGrad(() => f16.weight.copy(zeros([2, 2], { device }).add(6e4)));
    f16.weight = noGrad(() => f16.weight.to("f16"));
    const biased = new nn.Linear(2, 2, { device });
    for (const [layer, part, value] of [
      [f16, "loraB", 1e4],
      [biased, "loraBias", NaN],
    ] as const) {
      class Net extends nn.Module {
        one: nn.Linear = layer;
        forward(): void {}
      }
      const model = new Net();
      const weight = layer.weight;
      await lora.inject(model, { r: 1, targetModules: ["one"], loraBias: part === "loraBias" });
      const adapter = (model.one as lora.Linear).adapters.get("default") as lora.Adapter;
      noGrad(() => {
        adapter.loraA.copy(zeros([1, 2], { device }).add(1));
        adapter[part]?.copy(zeros(adapter[part].shape, { device }).add(value));
      });
      await t.throwsAsync(lora.merge(model), { code: "ERR_NOT_FINITE", message: /one with its adapter/ });
      t.is(model.one.weight, weight);
      t.false(lora.status(model).merged);
    }
  });

  test(`on ${device} senseless operations on adapters are refused, and change nothing`, async (t) => {
    const options = {
      a: attention,
      b: { ...attention, r: 4 },
      dora: { ...attention, useDora: true },
      biased: { ...attention, loraBias: true },
    };
    const model = await adapted(device, options);
    const before = await logits(model);
    const add = lora.addWeightedAdapter;
    const bad: [what: () => unknown, code: string, message: RegExp][] = [
      [() => lora.setAdapter(model, "c"), "ERR_UNKNOWN_ADAPTER", /"c"; loaded: "a", "b"/],
      [() => lora.setAdapter(model, ["a", "c"]), "ERR_UNKNOWN_ADAPTER", /loaded: "a", "b"/],
      [() => lora.setAdapter(model, { a: NaN }), "ERR_OPTION", /the weight of "a"/],
      [() => lora.setAdapter(model, ["a", "a"]), "ERR_OPTION", /"a" twice/],
      [() => lora.deleteAdapter(model, "c"), "ERR_UNKNOWN_ADAPTER", /loaded: "a", "b"/],
      [() => lora.inject(model, { ...attention, name: "a" }), "ERR_ADAPTER_EXISTS", /"a"/],
      [() => lora.saveAdapter(model, temporary()), "ERR_UNKNOWN_ADAPTER", /"default"; loaded: "a", "b"/],
      [() => add(model, "a", { b: 1 }), "ERR_ADAPTER_EXISTS", /"a"/],
      [() => add(model, "n", {}), "ERR_OPTION", /no adapters/],
      [() => add(model, "n", { a: 1, c: 1 }), "ERR_UNKNOWN_ADAPTER", /"c"; loaded: "a", "b"/],
      [() => add(model, "n", { a: Infinity }), "ERR_OPTION", /weight of "a"/],
      [() => add(model, "n", { a: 1, b: 1 }), "ERR_OPTION", /q_proj "a" 2, "b" 4\): .*; use cat or svd/],
      [
        () => add(model, "n", { a: 1, b: 1 }, { combination: "sum" as "cat" }),
        "ERR_OPTION",
        /one of linear, cat/,
      ],
      [
        () => add(model, "n", { a: 1 }, { combination: "svd", rank: 0 }),
        "ERR_OPTION",
        /rank must be a whole number/,
      ],
      [() => add(model, "n", { a: 1 }, { combination: "ties", rank: 3 }), "ERR_OPTION", /keeps the rank.*2/],
      [() => add(model, "n", { a: 1, b: 1 }, { combination: "ties", density: 2 }), "ERR_OPTION", /density/],
    ];
    for (const [what, code, message] of bad) {
      await t.throwsAsync(async () => what(), { code, message }, message.source);
      t.deepEqual(lora.adapters(model), Object.keys(options));
      t.deepEqual(await logits(model), before);
    }
    model.dispose();
  });
}
