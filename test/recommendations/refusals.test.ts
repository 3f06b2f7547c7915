/** The recommendations of refusals work: `followed.ts` names the test for each. */
import { join } from "node:path";

import test from "ava";

import {
  finetune,
  loadModel,
  lora,
  nn,
  safetensors,
  saveModel,
  tensor,
  zeros,
  type CausalLM,
  type Tensor,
} from "../../src/index.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { runHere as run } from "../cli/lowrank.js";
import { temporary, tinyData } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";

/** Its tokenizer is supported in GGUF files. */
const folder = locateDefaultModel();
const data = tinyData();
const room = temporary();
let made = 0;
const fresh = (name: string): string => join(room, `${made++}-${name}`);

const linears = (): nn.Sequential => new nn.Sequential(new nn.Linear(4, 4), new nn.Linear(4, 4));
const batch = (): Tensor =>
  tensor(
    Array.from({ length: 32 }, (_, i) => Math.sin(i)),
    { shape: [8, 4] },
  );

/** Checks that `options` are refused, and `instead` is not. */
async function follow(
  t: { throwsAsync: (p: Promise<unknown>, e: object) => Promise<unknown>; true: (v: boolean) => boolean },
  make: () => nn.Module,
  options: lora.InjectOptions,
  message: RegExp,
  ...instead: lora.InjectOptions[]
): Promise<void> {
  await t.throwsAsync(lora.inject(make(), options), { message });
  for (const one of instead) t.true((await lora.inject(make(), one)).adapted.length > 0);
}

test("initialisations of adapters: the recommended alternative", async (t) => {
  const all = { targetModules: "all-linear" };
  await follow(
    t,
    linears,
    { ...all, loraBias: true, initLoraWeights: "gaussian" },
    /take true or false as initLoraWeights/,
    { ...all, loraBias: true, initLoraWeights: true },
    { ...all, loraBias: true, initLoraWeights: false },
  );
  await follow(t, linears, { ...all, r: 2, initLoraWeights: "eva" }, /give batches of ids as evaData/, {
    ...all,
    r: 2,
    initLoraWeights: "eva",
    evaData: [batch()],
  });
  class Looked extends nn.Module {
    0 = new nn.Linear(4, 4);
    1 = new nn.Embedding(3, 4);
    override forward(x: Tensor): Tensor {
      return this[0].forward(x);
    }
  }
  const looked = (): nn.Module => new Looked();
  await follow(
    t,
    looked,
    { r: 2, targetModules: ["1"], initLoraWeights: "eva", evaData: [batch()] },
    /name some in targetModules/,
    { r: 2, targetModules: ["0", "1"], initLoraWeights: "eva", evaData: [batch()] },
  );
  await follow(
    t,
    linears,
    { ...all, loraAlpha: 0, initLoraWeights: "pissa", r: 2 },
    /take a loraAlpha above 0/,
    { ...all, loraAlpha: 1, initLoraWeights: "pissa", r: 2 },
  );
  await follow(
    t,
    linears,
    { ...all, r: 5, initLoraWeights: "pissa" },
    /take a lower rank, by rankPattern for the layer alone/,
    { ...all, r: 4, initLoraWeights: "pissa" },
    { ...all, r: 5, rankPattern: { "0": 4, "1": 2 }, initLoraWeights: "pissa" },
  );
});

/** Inputs of `a` vary along two directions, and inputs of `b.a` evenly along four. */
class Nested extends nn.Module {
  a = new nn.Linear(4, 4);
  b = new (class extends nn.Module {
    a = new nn.Linear(4, 4);
    override forward(x: Tensor): Tensor {
      return this.a.forward(x);
    }
  })();
  override forward(x: Tensor): Tensor {
    return this.a.forward(x.mul(tensor([1, 1, 0, 0]))).add(this.b.forward(x));
  }
}

test("a layer to which EVA gives no rank, and whose path ends another's, is excluded from the targets", async (t) => {
  const units = [0, 1, 2, 3].flatMap((at) =>
    [1, -1].map((sign) => [0, 1, 2, 3].map((i) => (i === at ? sign : 0))),
  );
  const eva: lora.InjectOptions = {
    r: 1,
    initLoraWeights: "eva",
    evaData: [tensor(units.flat(), { shape: [8, 4] })],
    evaConfig: { rho: 2 },
  };
  await t.throwsAsync(lora.inject(new Nested(), { ...eva, targetModules: "all-linear" }), {
    message: /leave the layer out of targetModules, or name it in excludeModules/,
  });
  const excluded = { ...eva, targetModules: "all-linear", excludeModules: ["b.a"] } as const;
  t.deepEqual((await lora.inject(new Nested(), excluded)).adapted, ["a"]);
  const named = { ...eva, targetModules: ["b.a"] };
  t.deepEqual((await lora.inject(new Nested(), named)).adapted, ["b.a"]);
});

test("a grouped convolution: without useDora", async (t) => {
  const make = (): nn.Module => new nn.Sequential(new nn.Conv1d(4, 4, 3, { groups: 2 }));
  const dora = make();
  await lora.inject(dora, { r: 2, targetModules: ["0"], useDora: true });
  await t.throwsAsync(lora.saveAdapter(dora, fresh("dora")), { message: /leave useDora out/ });
  const plain = make();
  await lora.inject(plain, { r: 2, targetModules: ["0"] });
  await t.notThrowsAsync(lora.saveAdapter(plain, fresh("plain")));
});

test("attention: without the option, or excluded", async (t) => {
  class Model extends nn.Module {
    plain = new nn.Linear(8, 8);
    attn = new nn.MultiheadAttention(8, 2);
    override forward(x: Tensor): Tensor {
      return this.plain.forward(x);
    }
  }
  const options = { targetModules: ["plain", "attn"], r: 2 };
  await t.throwsAsync(lora.inject(new Model(), { ...options, useDora: true }), {
    message: /leave the option out, or the layer with excludeModules/,
  });
  t.true((await lora.inject(new Model(), options)).adapted.includes("attn"));
  const left = { ...options, useDora: true, excludeModules: ["attn"] };
  t.deepEqual((await lora.inject(new Model(), left)).adapted, ["plain"]);
});

test.serial("quantised weights: the alternatives that merge, save and load", async (t) => {
  const load = (quantize?: "q8_0"): Promise<CausalLM> =>
    loadModel<"causal-lm">(folder, { device: "cpu", ...(quantize && { quantize }) });
  const adapt = async (model: CausalLM): Promise<CausalLM> => {
    await lora.inject(model, { r: 2, targetModules: ["q_proj"] });
    return model;
  };
  const quantised = await load("q8_0");
  await t.throwsAsync(saveModel(quantised, fresh("model")), { message: /give dtype, f16 say/ });
  await t.notThrowsAsync(saveModel(quantised, fresh("model"), { dtype: "f16" }));
  await t.throwsAsync(lora.mergeAndUnload(await adapt(quantised)), {
    message: /load the model without quantize/,
  });
  const plain = await load();
  await t.notThrowsAsync(lora.mergeAndUnload(await adapt(plain)));
  const file = fresh("q.gguf");
  await saveModel(plain, file, { format: "gguf", dtype: "q8_0" });
  // The alternative: a GGUF file with a dtype, merged, and quantised again.
  const floats = await loadModel<"causal-lm">(file, { device: "cpu", dtype: "f16" });
  await t.notThrowsAsync(lora.mergeAndUnload(await adapt(floats)));
  await t.notThrowsAsync(saveModel(floats, fresh("again.gguf"), { format: "gguf", dtype: "q8_0" }));
  const options = { data, steps: 1, gradientAccumulation: 1, device: "cpu" };
  await t.throwsAsync(finetune({ ...options, model: file, quantize: "q8_0", output: fresh("o") }).result, {
    message: /leave quantize out/,
  });
  await t.notThrowsAsync(finetune({ ...options, model: file, output: fresh("o") }).result);
  await t.throwsAsync(finetune({ ...options, model: plain, quantize: "q8_0", output: fresh("o") }).result, {
    message: /give quantize to loadModel/,
  });
  await t.notThrowsAsync(finetune({ ...options, model: await load("q8_0"), output: fresh("o") }).result);
});

test.serial("a kohya file with several networks: one of them by prefix", async (t) => {
  const model = await loadModel<"causal-lm">(folder, { device: "cpu" });
  const { inFeatures, outFeatures } = new Map(model.namedModules()).get(
    "model.layers.0.self_attn.q_proj",
  ) as nn.Linear;
  const both = ["lora_te", "lora_unet"].flatMap((network) => {
    const path = `${network}_model_layers_0_self_attn_q_proj`;
    return [
      [`${path}.lora_down.weight`, zeros([2, inFeatures])] as const,
      [`${path}.lora_up.weight`, zeros([outFeatures, 2])] as const,
    ];
  });
  const file = fresh("k.safetensors");
  await safetensors.save(file, Object.fromEntries(both));
  await t.throwsAsync(lora.loadAdapter(model, file), { message: /name the one for this model as prefix$/ });
  await lora.loadAdapter(model, file, { prefix: "lora_te" });
  t.deepEqual(lora.adapters(model), ["default"]);
  model.dispose();
});

for (const format of ["kohya", "loralib"]) {
  test.serial(
    `an adapter that ${format}'s files do not support stays in PEFT's folder, or is merged`,
    async (t) => {
      const model = await loadModel<"causal-lm">(folder, { device: "cpu" });
      await lora.inject(model, { r: 2, targetModules: ["q_proj"], useDora: true });
      const adapter = fresh("adapter");
      await lora.saveAdapter(model, adapter);
      model.dispose();
      const common = ["--adapter", adapter, "--model", folder];
      const refused = await run("export", ...common, "--format", format, "--output", fresh("a.safetensors"));
      t.regex(refused.stderr, /keep PEFT's folder, or merge$/m);
      const merged = await run("merge", ...common, "--output", fresh("merged"));
      t.is(merged.status, 0, merged.stderr);
      const kept = await run("export", ...common, "--format", "peft", "--output", fresh("peft"));
      t.is(kept.status, 0, kept.stderr);
    },
  );
}

test.serial("rows with labels: without packing", async (t) => {
  const options = { model: await tinyEncoder(), data: rowsFile(seaAndLand(8)), steps: 1, device: "cpu" };
  await t.throwsAsync(finetune({ ...options, packing: true, output: fresh("o") }).result, {
    message: /leave packing out/,
  });
  await t.notThrowsAsync(finetune({ ...options, output: fresh("o") }).result);
});

test.serial("options of commands: the options that they need in addition, or instead", async (t) => {
  const generate = [
    "generate",
    "--model",
    folder,
    "--prompt",
    "a",
    "--max-tokens",
    "1",
    "--device",
    "cpu",
    "--logprobs",
  ];
  t.regex((await run(...generate)).stderr, /give --json, too/);
  t.is((await run(...generate, "--json")).status, 0);
  const adapter = fresh("adapter");
  t.is(
    (
      await run(
        "finetune",
        "--model",
        folder,
        "--data",
        data,
        "--steps",
        "1",
        "--device",
        "cpu",
        "--output",
        adapter,
      )
    ).status,
    0,
  );
  const merge = ["merge", "--adapter", adapter];
  t.regex(
    (await run(...merge, "--dtype", "q8_0", "--output", fresh("m"))).stderr,
    /give --format gguf, or another --dtype/,
  );
  t.is((await run(...merge, "--dtype", "q8_0", "--format", "gguf", "--output", fresh("m"))).status, 0);
  t.is((await run(...merge, "--dtype", "f16", "--output", fresh("m"))).status, 0);
  const exported = ["export", "--adapter", adapter, "--format", "gguf", "--offline"];
  t.regex((await run(...exported, "--output", fresh("e"))).stderr, /give --model, or leave them out/);
  t.is((await run(...exported, "--model", folder, "--output", fresh("e"))).status, 0);
});

test.serial("a tied embedding is trained in full, or excluded from the targets", async (t) => {
  const tied = (): Promise<CausalLM> => loadModel<"causal-lm">(folder, { device: "cpu" });
  const model = await tied();
  const options = { r: 2, targetModules: ["embed_tokens", "q_proj"], ensureWeightTying: true };
  await t.throwsAsync(lora.inject(model, options), {
    message: /leave it out of targetModules, or name it in modulesToSave/,
  });
  t.true((await lora.inject(await tied(), { ...options, targetModules: ["q_proj"] })).adapted.length > 0);
  t.true(
    (
      await lora.inject(await tied(), {
        ...options,
        targetModules: ["q_proj"],
        modulesToSave: ["embed_tokens"],
      })
    ).adapted.length > 0,
  );
});
