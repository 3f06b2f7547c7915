/** What refusals recommend works: `followed.ts` says which test follows which. */
import { join } from "node:path";

import test from "ava";

import {
  finetune,
  loadModel,
  lora,
  nn,
  saveModel,
  tensor,
  type CausalLM,
  type Tensor,
} from "../../src/index.js";
import { defaultModel } from "../../src/models/default.js";
import { runHere as run } from "../cli/lowrank.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";

/** Its tokenizer is one that GGUF files have. */
const folder = defaultModel();
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

/** Refused with `options`, and not with `instead`. */
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

test("starts of adapters: what is recommended instead", async (t) => {
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
  const convolution = (): nn.Module => new nn.Sequential(new nn.Linear(4, 4), new nn.Embedding(3, 4));
  await follow(
    t,
    convolution,
    { r: 2, targetModules: ["1"], initLoraWeights: "eva", evaData: [batch()] },
    /name some in targetModules/,
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

class Nested extends nn.Module {
  a = new nn.Linear(4, 4);
  b = new nn.Sequential(new nn.Linear(4, 4));
  override forward(x: Tensor): Tensor {
    return this.b.forward(this.a.forward(x));
  }
}

test("a layer whose path ends another's can be left out by hand", async (t) => {
  const model = new Nested();
  t.deepEqual((await lora.inject(model, { targetModules: "all-linear", excludeModules: ["a"] })).adapted, [
    "b.0",
  ]);
  const named = new Nested();
  t.deepEqual((await lora.inject(named, { targetModules: ["b.0"] })).adapted, ["b.0"]);
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

test("attention: without the option, or left out", async (t) => {
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

/** A layer that is refused, the options that it is refused with, and what mends it. */
class Doubled extends nn.Linear {
  override forward(x: Tensor): Tensor {
    return super.forward(x).mul(2);
  }
}
class Async extends nn.Linear {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  override forward(x: Tensor): any {
    return Promise.resolve(super.forward(x));
  }
}
class Named extends nn.Linear {
  adapters = "mine";
}
class Assigned extends nn.Linear {
  override forward = (x: Tensor): Tensor => x;
}

test("layers of a user's own that are refused can be left out", async (t) => {
  const around = (own: nn.Linear): nn.Module => {
    class Model extends nn.Module {
      plain = new nn.Linear(4, 4);
      own = own;
      override forward(x: Tensor): Tensor {
        return this.own.forward(this.plain.forward(x));
      }
    }
    return new Model();
  };
  const all = { targetModules: "all-linear", r: 2 };
  const cases: [() => nn.Linear, lora.InjectOptions][] = [
    [() => Object.freeze(new nn.Linear(4, 4)) as nn.Linear, all],
    [() => new Doubled(4, 4), { ...all, loraDropout: 0.5 }],
    [() => new Doubled(4, 4, { dtype: "bf16" } as never), all],
    [() => new Named(4, 4) as unknown as nn.Linear, all],
    [() => new Assigned(4, 4), all],
  ];
  for (const [make, options] of cases) {
    const model = around(make());
    const error = await lora.inject(model, options).catch((one: unknown) => one as Error);
    if (error instanceof Error) t.regex(error.message, /leave (the layer|it) out with excludeModules/);
    const left = around(make());
    t.deepEqual((await lora.inject(left, { ...options, excludeModules: ["own"] })).adapted, ["plain"]);
  }
  const late = around(new Async(4, 4));
  await lora.inject(late, all);
  await t.throwsAsync(
    async () => (late as unknown as { forward(x: Tensor): Promise<Tensor> }).forward(batch()),
    { message: /leave the layer out with excludeModules/ },
  );
  // A dropout of 0 is the other way.
  t.is((await lora.inject(around(new Doubled(4, 4)), { ...all, loraDropout: 0 })).adapted.length, 2);
});

const GGUF: [what: string, options: lora.InjectOptions][] = [
  ["DoRA", { targetModules: ["q_proj"], useDora: true }],
  ["modules in full", { targetModules: ["q_proj"], modulesToSave: ["lm_head"] }],
  ["tokens", { targetModules: ["q_proj"], trainableTokenIndices: [1, 2] }],
];
for (const [what, options] of GGUF) {
  test.serial(`what llama.cpp's adapters cannot hold is merged into a GGUF file: ${what}`, async (t) => {
    const model = await loadModel<"causal-lm">(folder, { device: "cpu" });
    await lora.inject(model, { r: 2, ...options });
    const adapter = fresh("adapter");
    await lora.saveAdapter(model, adapter);
    model.dispose();
    const common = ["--adapter", adapter, "--model", folder];
    const no = await run("export", ...common, "--format", "gguf", "--output", fresh("a.gguf"));
    t.is(no.status, 1);
    const [, command] = /write that: lowrank (merge --format gguf)$/m.exec(no.stderr) ?? [];
    t.truthy(command, no.stderr);
    const output = fresh("m.gguf");
    const merged = await run(...(command as string).split(" "), ...common, "--output", output);
    t.is(merged.status, 0, merged.stderr);
    t.is((await run("inspect", output)).status, 0);
  });
}

test.serial("biases of B are merged where the layers have biases", async (t) => {
  const make = (bias: boolean): nn.Module => new nn.Sequential(new nn.Linear(4, 4, { bias }));
  for (const bias of [true, false]) {
    const model = make(bias);
    await lora.inject(model, { r: 2, targetModules: ["0"], loraBias: true });
    if (bias) await t.notThrowsAsync(lora.mergeAndUnload(model));
    else await t.notThrowsAsync(lora.saveAdapter(model, fresh("peft")));
  }
});

test.serial("quantised weights: what merges, saves and loads instead", async (t) => {
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

test.serial("rows with labels: without packing", async (t) => {
  const options = { model: await tinyEncoder(), data: rowsFile(seaAndLand(8)), steps: 1, device: "cpu" };
  await t.throwsAsync(finetune({ ...options, packing: true, output: fresh("o") }).result, {
    message: /leave packing out/,
  });
  await t.notThrowsAsync(finetune({ ...options, output: fresh("o") }).result);
});

test.serial("options of commands: what they need besides, or in place", async (t) => {
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

test.serial("a tied embedding is trained whole, or left out of the targets", async (t) => {
  const tied = (): Promise<CausalLM> => loadModel<"causal-lm">(tinyModel(), { device: "cpu" });
  const model = await tied();
  const options = { r: 2, targetModules: ["embed_tokens", "q_proj"], ensureWeightTying: true };
  const error = await lora.inject(model, options).catch((one: unknown) => one as Error);
  if (error instanceof Error)
    t.regex(error.message, /leave it out of targetModules, or name it in modulesToSave/);
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
