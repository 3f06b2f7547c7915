/** One adapter per row of a batch: equal to separate rows, in forward and in training. */
import { fileURLToPath } from "node:url";

import test from "ava";
import {
  loadModel,
  lora,
  LowrankError,
  manualSeed,
  nn,
  noGrad,
  optim,
  randn,
  scope,
  tensor,
  type CausalLM,
  type Tensor,
} from "../../src/index.js";
import { listParts } from "../../src/lora/layers/layer.js";
import { runWithAdapterPerRow } from "../../src/lora/layers/rows.js";
import { testDevices, type TestDevice } from "../devices.js";
import { goldenModel } from "../hashed.js";
import { error } from "../parity/goldens.js";
import { subjects } from "./subjects.js";

const llama = goldenModel(fileURLToPath(new URL("../parity/goldens/llama-untied-llama3", import.meta.url)));
const names = ["one", "two", "three"] as const;
const T = 7;

function randomise(model: nn.Module, device: TestDevice): void {
  noGrad(() =>
    scope(() => {
      for (const [, module] of model.namedModules()) {
        if (!(module instanceof lora.LoRALayer)) continue;
        for (const adapter of module.adapters.values())
          for (const [, part] of listParts(adapter)) part.copy(randn(part.shape, { device }).mul(0.2));
      }
    }),
  );
}

/** Returns a small Llama with three adapters of different ranks, scalings and targets. */
async function threefold(device: TestDevice): Promise<CausalLM> {
  const model = (await loadModel(await llama, { device })) as CausalLM;
  const targets = [
    ["q_proj", "v_proj"],
    ["q_proj", "embed_tokens"],
    ["q_proj", "down_proj"],
  ];
  for (const [i, name] of names.entries())
    await lora.inject(model, { name, r: i + 1, loraAlpha: 3 + i, targetModules: targets[i] as string[] });
  manualSeed(11);
  randomise(model, device);
  return model;
}

/** Returns ids that depend on the row, and not on its position in the batch. */
function idsOf(rows: readonly number[], device: TestDevice): Tensor {
  const ids = Int32Array.from(
    { length: rows.length * T },
    (_, i) => ((rows[Math.floor(i / T)] as number) * 31 + (i % T) * 17) % 97,
  );
  return tensor(ids, { shape: [rows.length, T], device });
}

/** Returns the ids as labels, with the first `row` positions of each row ignored. */
function labelsOf(rows: readonly number[], device: TestDevice): Tensor {
  const labels = Int32Array.from({ length: rows.length * T }, (_, i) => {
    const row = rows[Math.floor(i / T)] as number;
    return i % T < row ? -100 : (row * 31 + (i % T) * 17) % 97;
  });
  return tensor(labels, { shape: [rows.length, T], device });
}

function only(model: CausalLM, name: string | null): void {
  lora.setAdapter(model, name === null ? [] : [name]);
}

for (const device of testDevices()) {
  for (const subject of subjects) {
    test(`${subject.name} on ${device}: rows with several adapters equal separate rows`, async (t) => {
      manualSeed(2);
      const layer = subject.wrap(subject.base(device), 3, 4);
      for (const [i, name] of names.entries())
        layer.addAdapter(name, layer.createAdapter({ ...subject.fresh, r: i + 1, loraAlpha: 2 }), false);
      randomise(layer, device);
      const x = subject.input(device);
      const run = (given: Tensor): Tensor => (layer.forward as (x: Tensor) => Tensor).call(layer, given);
      const rows = x.shape[0] as number;
      const orders = [
        Array.from({ length: rows }, (_, i) => [null, ...names][i % 4] as string | null),
        Array.from({ length: rows }, (_, i) => (i === 0 ? "two" : "default")),
        Array.from({ length: rows }, () => null),
        Array.from({ length: rows }, () => "three"),
      ];
      for (const order of orders) {
        const together = runWithAdapterPerRow(order, () => run(x));
        const merged = runWithAdapterPerRow(order, () => {
          layer.merge();
          return run(x);
        });
        layer.unmerge();
        const active = layer.active;
        const apart = order.map((name, row) => {
          layer.setActive(name === null ? [] : [{ name, weight: 1 }]);
          return run(x.slice(0, row, row + 1));
        });
        layer.setActive(active);
        const [first, ...rest] = apart as [Tensor, ...Tensor[]];
        const expected = await first.concat(rest, 0).data();
        t.true(error(await together.data(), expected) < 1e-5, order.join());
        t.true(error(await merged.data(), expected) < 1e-5, `merged, ${order.join()}`);
      }
    });
  }

  test(`a batch with several adapters on ${device} equals its separate rows`, async (t) => {
    const model = await threefold(device);
    const order = ["two", null, "one", "one", "three", "two"];
    const rows = order.map((_, i) => i);
    const together = model.forward(idsOf(rows, device), {
      adapterPerRow: order,
      labels: labelsOf(rows, device),
    });
    const logits: number[] = [];
    for (const [row, name] of order.entries()) {
      only(model, name);
      logits.push(...(await model.forward(idsOf([row], device)).logits.data()));
    }
    t.true(error(await together.logits.data(), logits) < 1e-5);
    let loss = 0;
    for (const name of new Set(order)) {
      only(model, name);
      const own = rows.filter((row) => order[row] === name);
      loss += await (
        model.forward(idsOf(own, device), { labels: labelsOf(own, device) }).loss as Tensor
      ).item();
    }
    t.true(Math.abs((await (together.loss as Tensor).item()) - loss) < 1e-5 * loss);
    model.dispose();
  });

  test(`an adapter's own modules and biases are applied by row, too, on ${device}`, async (t) => {
    const model = (await loadModel(await llama, { device })) as CausalLM;
    await lora.inject(model, { name: "one", r: 2, targetModules: ["q_proj"], bias: "all" });
    await lora.inject(model, {
      name: "two",
      r: 2,
      targetModules: ["v_proj"],
      modulesToSave: ["o_proj", "lm_head"],
    });
    await lora.inject(model, {
      name: "three",
      r: 2,
      targetModules: ["q_proj"],
      modulesToSave: ["lm_head"],
      bias: "lora_only",
    });
    manualSeed(13);
    for (const name of names) {
      lora.setAdapter(model, name, { trainable: true });
      noGrad(() =>
        scope(() => {
          for (const p of model.parameters())
            if (p.requiresGrad) p.copy(p.add(randn(p.shape, { device }).mul(0.1)));
        }),
      );
    }
    const order = ["three", null, "one", "one", "two", "three"];
    const rows = order.map((_, i) => i);
    for (const active of ["two", "three"]) {
      lora.setAdapter(model, active);
      const before = await model.forward(idsOf(rows, device)).logits.data();
      const together = model.forward(idsOf(rows, device), { adapterPerRow: order }).logits;
      const logits: number[] = [];
      for (const [row, name] of order.entries()) {
        only(model, name);
        logits.push(...(await model.forward(idsOf([row], device)).logits.data()));
      }
      t.true(error(await together.data(), logits) < 1e-5);
      lora.setAdapter(model, active);
      t.deepEqual(await model.forward(idsOf(rows, device)).logits.data(), before);
    }
    model.dispose();
  });

  test(`an assigned forward of a layer with trained biases runs by row, and stays, on ${device}`, async (t) => {
    const model = (await loadModel(await llama, { device })) as CausalLM;
    await lora.inject(model, { name: "one", r: 2, targetModules: ["q_proj"], bias: "all" });
    await lora.inject(model, { name: "two", r: 2, targetModules: ["q_proj"], modulesToSave: ["o_proj"] });
    manualSeed(17);
    for (const name of ["one", "two"]) {
      lora.setAdapter(model, name, { trainable: true });
      noGrad(() =>
        scope(() => {
          for (const p of model.parameters())
            if (p.requiresGrad) p.copy(p.add(randn(p.shape, { device }).mul(0.1)));
        }),
      );
    }
    lora.setAdapter(model, "one");
    const biased = [...model.namedModules()].flatMap(([path, module]) =>
      module instanceof nn.Linear && !(module instanceof lora.LoRALayer) && module.bias
        ? [{ path, module }]
        : [],
    );
    const [layer] = biased.filter(({ path }) => path.endsWith("down_proj") || path.endsWith("k_proj"));
    t.truthy(layer, biased.map(({ path }) => path).join());
    const own = layer?.module as nn.Linear;
    const doubled = (x: Tensor): Tensor => nn.Linear.prototype.forward.call(own, x).mul(2);
    own.forward = doubled;
    const order = ["two", null, "one", "one"];
    const together = model.forward(idsOf([0, 1, 2, 3], device), { adapterPerRow: order }).logits;
    t.is(own.forward, doubled);
    t.true(Object.getOwnPropertyDescriptor(own, "forward")?.enumerable);
    const logits: number[] = [];
    for (const [row, name] of order.entries()) {
      only(model, name);
      logits.push(...(await model.forward(idsOf([row], device)).logits.data()));
    }
    t.true(error(await together.data(), logits) < 1e-5);
    model.dispose();
  });

  test(`three adapters trained together on ${device} equal each trained alone`, async (t) => {
    const order = ["one", "two", "two", "three", "one"];
    const train = async (
      adapters: readonly string[],
      checkpointed: boolean,
    ): Promise<Map<string, number[]>> => {
      const model = await threefold(device);
      model.gradientCheckpointing = checkpointed;
      model.train();
      const parametersOf = (name: string): Tensor[] =>
        [...model.namedParameters()].filter(([key]) => key.includes(`.${name}`)).map(([, p]) => p);
      const own = order.map((_, i) => i).filter((row) => adapters.includes(order[row] as string));
      const optimizers = adapters.map((name) => new optim.AdamW(parametersOf(name), { lr: 0.01 }));
      for (let step = 0; step < 3; step++) {
        scope(() => {
          const { loss } = model.forward(idsOf(own, device), {
            labels: labelsOf(own, device),
            adapterPerRow: own.map((row) => order[row] as string),
          });
          loss?.backward();
        });
        for (const name of adapters) optim.clipGradNorm(parametersOf(name), 0.5);
        for (const optimizer of optimizers) {
          optimizer.step();
          optimizer.zeroGrad();
        }
      }
      const trained = new Map<string, number[]>();
      for (const [key, p] of model.namedParameters())
        if (adapters.some((name) => key.includes(`.${name}`))) trained.set(key, [...(await p.data())]);
      model.dispose();
      return trained;
    };
    const together = await train(names, false);
    const again = await train(names, true);
    for (const name of names) {
      for (const [key, values] of await train([name], false)) {
        t.true(error(together.get(key) as number[], values) < 1e-5, key);
        t.deepEqual(again.get(key), together.get(key), `checkpointed, ${key}`);
      }
    }
  });

  test(`adapter names that do not match a batch are refused on ${device}`, async (t) => {
    const model = await threefold(device);
    const refused = (adapterPerRow: (string | null)[]): LowrankError =>
      t.throws(() => model.forward(idsOf([0, 1], device), { adapterPerRow }), {
        instanceOf: LowrankError,
      }) as LowrankError;
    const unknown = refused(["one", "four"]);
    t.is(unknown.code, "ERR_UNKNOWN_ADAPTER");
    t.regex(unknown.message, /"four".*"one", "two", "three"/);
    t.is(refused(["one"]).code, "ERR_SHAPE_MISMATCH");
    model.dispose();
  });
}

test("a batch with more adapters than a pass supports is split by rows", async (t) => {
  manualSeed(4);
  const layer = lora.Linear.fromBase(new nn.Linear(6, 5, { device: "cpu" }));
  const many = Array.from({ length: 40 }, (_, i) => `adapter ${i}`);
  for (const name of many) layer.addAdapter(name, layer.createAdapter({ r: 2, loraAlpha: 4 }), false);
  randomise(layer, "cpu");
  const x = randn([40, 3, 6], { device: "cpu" });
  const together = await runWithAdapterPerRow(many, () => layer.forward(x)).data();
  const apart: number[] = [];
  for (const [row, name] of many.entries())
    apart.push(...(await runWithAdapterPerRow([name], () => layer.forward(x.slice(0, row, row + 1))).data()));
  t.true(error(together, apart) < 1e-5);
});
