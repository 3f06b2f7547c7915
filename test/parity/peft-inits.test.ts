/**
 * Initialisations compared with PEFT's: factors, the residual weight, EVA's ranks and components; and that files
 * keep them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test, { type ExecutionContext } from "ava";
import {
  loadModel,
  lora,
  noGrad,
  optim,
  scope,
  tensor,
  type CausalLM,
  type Tensor,
} from "../../src/index.js";
import { testDevices } from "../devices.js";
import { goldenModel, temporary } from "../hashed.js";
import { error, goldens, onHost } from "./goldens.js";

const untied = goldenModel(join(goldens, "llama-untied-llama3"));
const golden = await onHost(join(goldens, "peft_inits.safetensors"));
const { eva } = JSON.parse(readFileSync(join(goldens, "peft_inits.json"), "utf8")) as {
  eva: {
    ranks: Record<string, number>;
    alphas: Record<string, number>;
    rankPattern: Record<string, number>;
    alphaPattern: Record<string, number>;
    targets: string[];
  };
};

const INITS: Record<string, lora.InjectOptions> = {
  pissa: { initLoraWeights: "pissa" },
  olora: { initLoraWeights: "olora" },
  "pissa-rslora": { initLoraWeights: "pissa", useRslora: true },
};
const OPTIONS = { r: 4, loraAlpha: 6, targetModules: ["q_proj", "down_proj"] };
const LAYERS = { q_proj: "model.layers.1.self_attn.q_proj", down_proj: "model.layers.1.mlp.down_proj" };

function layerAt(model: CausalLM, path: string): lora.Linear {
  return new Map(model.namedModules()).get(path) as lora.Linear;
}

function adapterAt(model: CausalLM, path: string, name = "default"): lora.Adapter {
  return layerAt(model, path).adapters.get(name) as lora.Adapter;
}

async function host(make: () => Tensor): Promise<Float32Array> {
  const made = noGrad(() => scope(make));
  const data = (await made.data()) as Float32Array;
  made.dispose();
  return data;
}

async function logits(model: CausalLM): Promise<Float32Array> {
  const ids = Int32Array.from({ length: 12 }, (_, i) => (i * 37) % 97);
  return host(() => model.forward(tensor(ids, { shape: [2, 6], device: model.device })).logits);
}

/** Trains a few steps, so that A and B differ from their initial values. */
function train(model: CausalLM): void {
  const optimizer = new optim.AdamW(
    [...model.parameters()].filter((p) => p.requiresGrad),
    { lr: 0.01 },
  );
  const ids = Int32Array.from({ length: 10 }, (_, i) => (i * 31) % 97);
  for (let step = 0; step < 3; step++) {
    scope(() => model.loss(tensor(ids, { shape: [1, 10], device: model.device }), ids).backward());
    optimizer.step();
    optimizer.zeroGrad();
  }
  optimizer.dispose();
}

// Singular vectors are f32 in PEFT and f64 here; products of them round at 1e-6 of the largest.
const CLOSE = 1e-5;

for (const device of testDevices()) {
  for (const [name, options] of Object.entries(INITS)) {
    test(`${name} on ${device}: product and residual weight are PEFT's, and the output is the base's`, async (t) => {
      const model = await loadModel<"causal-lm">(untied, { device });
      const before = await logits(model);
      await lora.inject(model, { ...OPTIONS, ...options });
      for (const [target, path] of Object.entries(LAYERS)) {
        const layer = layerAt(model, path);
        const adapter = adapterAt(model, path);
        const start = adapter.start as NonNullable<typeof adapter.start>;
        const product = await host(() => adapter.loraB.matmul(adapter.loraA).mul(adapter.scaling));
        const left = await host(() => layer.weight.sub(start.loraB.matmul(start.loraA).mul(adapter.scaling)));
        for (const [what, ours] of [
          ["product", product],
          ["residual", left],
        ] as const) {
          const off = error(ours, golden[`${name}.${target}.${what}`]?.data ?? []);
          t.true(off < CLOSE, `${target} ${what}: ${off}`);
        }
      }
      t.true(error(await logits(model), before) < CLOSE);
      t.deepEqual(await lora.withoutAdapters(model, () => logits(model)), before);
      model.dispose();
    });

    test(`${name} on ${device}: trained, merged, saved as a plain adapter and loaded over the original base weight`, async (t) => {
      const model = await loadModel<"causal-lm">(untied, { device });
      const before = await logits(model);
      await lora.inject(model, { ...OPTIONS, ...options });
      const start = await host(() => adapterAt(model, LAYERS.q_proj).start?.loraA.mul(1) as Tensor);
      train(model);
      const trained = await logits(model);
      t.true(error(trained, before) > 1e-3);
      t.deepEqual(await host(() => adapterAt(model, LAYERS.q_proj).start?.loraA.mul(1) as Tensor), start);

      const [folder, second] = [temporary(), temporary()];
      await lora.saveAdapter(model, folder);
      const config = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8")) as Record<
        string,
        unknown
      >;
      t.is(config["r"], 8);
      t.is(config["lora_alpha"], options.useRslora ? 6 * Math.SQRT2 : 12);
      t.is(config["init_lora_weights"], true);

      const again = await loadModel<"causal-lm">(untied, { device });
      await lora.loadAdapter(again, folder, { trainable: true });
      t.is(adapterAt(again, LAYERS.q_proj).r, 4);
      t.is(adapterAt(again, LAYERS.q_proj).scaling, adapterAt(model, LAYERS.q_proj).scaling);
      t.deepEqual(await logits(again), trained);
      await lora.saveAdapter(again, second);
      for (const file of ["adapter_config.json", "adapter_model.safetensors"])
        t.deepEqual(readFileSync(join(second, file)), readFileSync(join(folder, file)));
      // Training continues from the file as from the model.
      train(model);
      train(again);
      t.deepEqual(await logits(again), await logits(model));

      await lora.merge(model);
      t.true(error(await logits(model), await logits(again)) < CLOSE);
      t.deepEqual(await logits(lora.unload(model)), before);
      model.dispose();
      again.dispose();
    });
  }

  test(`pissa_niter on ${device} is near pissa, and the output is the base's`, async (t) => {
    const model = await loadModel<"causal-lm">(untied, { device });
    const before = await logits(model);
    await lora.inject(model, { ...OPTIONS, initLoraWeights: "pissa_niter_16" });
    t.true(error(await logits(model), before) < CLOSE);
    const layer = layerAt(model, LAYERS.q_proj);
    const { loraA, loraB, scaling } = adapterAt(model, LAYERS.q_proj);
    const left = await host(() => layer.weight.sub(loraB.matmul(loraA).mul(scaling)));
    const norm = (values: ArrayLike<number>): number => Math.hypot(...Array.from(values));
    const least = norm(golden["pissa.q_proj.residual"]?.data ?? []);
    // pissa's residual is the smallest of any rank-4 matrix, and sixteen iterations come close to it.
    t.true(norm(left) >= least * (1 - 1e-6) && norm(left) < least * 1.01, `${norm(left)} against ${least}`);
    model.dispose();
  });

  test(`several adapters on ${device}: one initialised from the weight and one randomly add up`, async (t) => {
    const model = await loadModel<"causal-lm">(untied, { device });
    await lora.inject(model, { ...OPTIONS, initLoraWeights: "pissa", name: "a" });
    train(model);
    const a = await logits(model);
    await lora.inject(model, { ...OPTIONS, initLoraWeights: false, name: "b" });
    lora.setAdapter(model, ["a", "b"]);
    const both = await logits(model);
    await lora.addWeightedAdapter(model, "sum", { a: 1, b: 1 });
    lora.setAdapter(model, "sum");
    t.true(error(await logits(model), both) < CLOSE);
    lora.setAdapter(model, "a");
    t.deepEqual(await logits(model), a);
    model.dispose();
  });

  test(`eva on ${device}: ranks, alphas and components are PEFT's, and no bit of the output changes`, async (t) => {
    const model = await loadModel<"causal-lm">(untied, { device });
    const before = await logits(model);
    const batches = [0, 1, 2].map((i) => {
      const [ids, labels] = [golden[`eva.${i}.ids`], golden[`eva.${i}.labels`]] as [
        { data: Int32Array },
        { data: Int32Array },
      ];
      const of = (data: Int32Array): Tensor => tensor(data, { shape: [2, 17], device });
      return { ids: of(ids.data), labels: of(labels.data) };
    });
    await lora.inject(model, {
      r: 3,
      loraAlpha: 6,
      targetModules: ["q_proj", "v_proj", "up_proj", "down_proj"],
      initLoraWeights: "eva",
      evaData: batches,
    });
    t.deepEqual(await logits(model), before);
    for (const [path, rank] of Object.entries(eva.ranks)) {
      const adapter = adapterAt(model, path);
      t.is(adapter.r, rank, path);
      t.is(adapter.loraAlpha, eva.alphas[path] as number);
      // The inputs differ by f32's rounding, which rotates components with similar shares the most.
      const off = error((await adapter.loraA.data()) as Float32Array, golden[`eva.${path}`]?.data ?? []);
      t.true(off < 1e-3, `${path}: ${off}`);
    }
    const folder = temporary();
    await lora.saveAdapter(model, folder);
    const config = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8")) as Record<
      string,
      unknown
    >;
    t.deepEqual(config["rank_pattern"], eva.rankPattern);
    t.deepEqual(config["alpha_pattern"], eva.alphaPattern);
    t.deepEqual(config["target_modules"], eva.targets);
    const again = await loadModel<"causal-lm">(untied, { device });
    await lora.loadAdapter(again, folder);
    t.deepEqual(await logits(again), before);
    model.dispose();
    again.dispose();
  });
}

const REFUSED: [options: lora.InjectOptions, message: RegExp][] = [
  [{ initLoraWeights: "loftq" as "eva" }, /loftq is not supported/],
  [{ initLoraWeights: "corda" as "eva" }, /corda is not supported/],
  [{ initLoraWeights: "lora_ga" as "eva" }, /lora_ga is not supported/],
  [{ initLoraWeights: "best" as "eva" }, /one of true, false, gaussian/],
  [{ initLoraWeights: "orthogonal", r: 3 }, /orthogonal with an odd rank \(.*, 3\)/],
  [{ initLoraWeights: "pissa", r: 49 }, /pissa at .*: 49, of at most 48/],
  [{ initLoraWeights: "pissa", loraAlpha: 0 }, /scaling of 0 or below \(/],
  [{ initLoraWeights: "pissa", useDora: true }, /choose one/],
  [{ initLoraWeights: "eva" }, /give batches of ids as evaData/],
  [{ initLoraWeights: "eva", evaData: [] }, /there is no batch/],
  [
    { initLoraWeights: "eva", evaData: [tensor([[1, 2]], { dtype: "i32", device: "cpu" })] },
    /no batch has as many positions/,
  ],
  [{ evaData: [] }, /evaData without initLoraWeights eva/],
  [{ initLoraWeights: "gaussian", loraBias: true }, /loraBias with a named initLoraWeights \(gaussian\)/],
];

async function refuses(t: ExecutionContext, options: lora.InjectOptions, message: RegExp): Promise<void> {
  const model = await loadModel<"causal-lm">(untied, { device: "cpu" });
  const before = Object.entries(model.stateDict()).map(([name, one]) => [name, one.id, one.requiresGrad]);
  await t.throwsAsync(lora.inject(model, { ...OPTIONS, ...options }), { code: "ERR_OPTION", message });
  t.deepEqual(lora.adapters(model), []);
  t.deepEqual(
    Object.entries(model.stateDict()).map(([name, one]) => [name, one.id, one.requiresGrad]),
    before,
  );
  model.dispose();
}

for (const [options, message] of REFUSED) {
  test(`${String(message)} is the error of inject, with nothing changed`, (t) =>
    refuses(t, options, message));
}
