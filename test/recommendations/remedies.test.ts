/** Remedies of messages without an option or a command: each is followed. `remedies.ts` lists them. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import test, { type ExecutionContext } from "ava";

import {
  inspect,
  loadModel,
  lora,
  nn,
  noGrad,
  ones,
  optim,
  randn,
  safetensors,
  saveModel,
  scope,
  tensor,
  zeros,
  type CausalLM,
  type Tensor,
} from "../../src/index.js";
import { locateDefaultModel } from "../../src/models/default.js";
import { temporary, tinyModel } from "../hashed.js";
import { tinyEncoder } from "../tiny-encoder.js";

const folder = locateDefaultModel();
const room = temporary();
let made = 0;
const fresh = (name: string): string => join(room, `${made++}-${name}`);
const linears = (): nn.Sequential => new nn.Sequential(new nn.Linear(4, 4), new nn.Linear(4, 4));
const causal = (): Promise<CausalLM> => loadModel<"causal-lm">(folder, { device: "cpu" });

/** Checks that `work` is refused with a message that states a remedy. */
async function says(t: ExecutionContext, work: () => unknown, message: RegExp): Promise<void> {
  const outcome = async (): Promise<unknown> => work();
  await t.throwsAsync(outcome(), { message });
}

async function adapted(options: lora.InjectOptions = {}): Promise<nn.Sequential> {
  const model = linears();
  await lora.inject(model, { r: 2, targetModules: ["0"], ...options });
  return model;
}

async function saved(options: lora.InjectOptions = {}): Promise<string> {
  const output = fresh("adapter");
  await lora.saveAdapter(await adapted(options), output);
  return output;
}

test("adapters: unmerge first, another name, deleteAdapter first, hotSwap", async (t) => {
  const merged = await adapted();
  await lora.merge(merged);
  const other = await saved();
  await says(t, () => lora.hotSwap(merged, other, { name: "default" }), /unmerge first/);
  lora.unmerge(merged);
  await lora.hotSwap(merged, other, { name: "default" });

  const wide = await saved({ r: 3 });
  await says(
    t,
    () => lora.hotSwap(merged, wide, { name: "default" }),
    /that of the adapter it replaces is 2; load it as another one/,
  );
  await lora.loadAdapter(merged, wide, { name: "other" });
  t.deepEqual(lora.adapters(merged).sort(), ["default", "other"]);

  const byHand = (): nn.Sequential => new nn.Sequential(new lora.Linear(4, 4, { r: 2 }), new nn.Linear(4, 4));
  const named = byHand();
  const given = { r: 2, targetModules: ["1"] };
  await says(
    t,
    () => lora.inject(named, given),
    /give the new one another name, write over them with hotSwap, or take them off with deleteAdapter first/,
  );
  await lora.inject(named, { ...given, name: "new" });
  await lora.hotSwap(byHand(), await saved(), { name: "default" });
  const without = byHand();
  lora.deleteAdapter(without, "default");
  t.true((await lora.inject(without, given)).adapted.length > 0);
});

test("adapters: a weight instead of a repeated name, one of two forms, a Sequential around a layer", async (t) => {
  const model = await adapted();
  await says(
    t,
    () => lora.setAdapter(model, ["default", "default"]),
    /names "default" twice; give it a weight instead/,
  );
  lora.setAdapter(model, { default: 2 });

  const layer = lora.Linear.fromBase(new nn.Linear(4, 4), { r: 2 });
  await says(t, () => lora.Linear.fromBase(layer, { r: 2 }), /give it one more with inject/);
  const around = new nn.Sequential(layer);
  await lora.inject(around, { name: "second", r: 2, targetModules: ["0"] });
  t.deepEqual(lora.adapters(around).sort(), ["default", "second"]);

  const alone = new nn.Linear(4, 4);
  await says(
    t,
    () => lora.inject(alone, { r: 2, targetModules: ["0"] }),
    /put it in an nn\.Sequential, or use lora's layer of its kind/,
  );
  t.is((await lora.inject(new nn.Sequential(alone), { r: 2, targetModules: ["0"] })).adapted.length, 1);
  t.is(lora.Linear.fromBase(alone, { r: 2 }).r, 2);

  await says(
    t,
    () => lora.saveAdapter(layer, fresh("alone")),
    /put it into one, such as new nn\.Sequential\(layer\)/,
  );
  await lora.saveAdapter(new nn.Sequential(layer), fresh("alone"));
});

test("adapters: combinations by cat or svd, AdamW instead of LoRA-FA's, a bias that cannot be merged", async (t) => {
  const model = await adapted();
  await lora.inject(model, { name: "wide", r: 3, targetModules: ["0"] });
  const weights = { default: 1, wide: 1 };
  await says(
    t,
    () => lora.addWeightedAdapter(model, "sum", weights, { combination: "linear" }),
    /use cat or svd/,
  );
  await lora.addWeightedAdapter(model, "cat", weights, { combination: "cat" });
  await lora.addWeightedAdapter(model, "svd", weights, { combination: "svd" });

  const tokens = new nn.Sequential(new nn.Embedding(6, 4), new nn.Linear(4, 4));
  const both = { r: 2, targetModules: ["0", "1"], trainableTokenIndices: { "0": [1, 2] } };
  await says(t, () => lora.inject(tokens, both), /choose one/);
  await lora.inject(tokens, { ...both, targetModules: ["1"] });
  const whole = { r: 2, targetModules: ["1"], modulesToSave: ["0"], trainableTokenIndices: { "0": [1] } };
  const again = new nn.Sequential(new nn.Embedding(6, 4), new nn.Linear(4, 4));
  await says(t, () => lora.inject(again, whole), /choose one/);
  await lora.inject(again, { ...whole, modulesToSave: [] });

  const unbiased = new nn.Sequential(new nn.Linear(4, 4, { bias: false }));
  await lora.inject(unbiased, { r: 2, targetModules: ["0"], loraBias: true });
  await says(t, () => lora.mergeAndUnload(unbiased), /keep the adapter unmerged/);
  t.deepEqual(unbiased.forward(ones([1, 4])).shape, [1, 4]);
});

test("saveModel: adapters merged, unloaded or saved first; a new folder", async (t) => {
  const model = await causal();
  await lora.inject(model, { r: 2, targetModules: ["q_proj"] });
  await says(t, () => saveModel(model, fresh("m")), /call mergeAndUnload or unload first, or saveAdapter/);
  await lora.saveAdapter(model, fresh("a"));
  lora.unload(model);
  const there = fresh("m");
  await saveModel(model, there);
  await lora.inject(model, { r: 2, targetModules: ["q_proj"] });
  await lora.mergeAndUnload(model);
  await says(t, () => saveModel(model, there), /exists and is not empty; choose another folder/);
  await saveModel(model, fresh("m"));
  const file = `${fresh("m")}.gguf`;
  await saveModel(model, file);
  await says(t, () => saveModel(model, file), /exists; choose another name/);
  await saveModel(model, `${fresh("m")}.gguf`);
  await says(t, () => inspect(fresh("none")), /no such|is not here|there is no/);
  model.dispose();
});

test("models: ids without a tokenizer, logits read in time, ids or embeddings, a padding token", async (t) => {
  const model = await causal();
  const ids = tensor(Int32Array.of(1, 2, 3), { shape: [1, 3], device: "cpu" });
  await says(
    t,
    () => model.forward(ids, { inputsEmbeds: model.embedTokens(ids) }),
    /not both; pass null as ids/,
  );
  const embedded = model.forward(null as never, { inputsEmbeds: model.embedTokens(ids) });
  t.deepEqual(await embedded.logits.data(), await model.forward(ids).logits.data());

  let output: ReturnType<typeof model.forward> | undefined;
  scope(() => {
    output = model.forward(ids);
  });
  await says(
    t,
    () => output?.logits,
    /read logits in the scope that forward was called in, or return the output from it/,
  );
  t.is(scope(() => model.forward(ids)).logits.shape.length, 3);
  scope(() => t.is(model.forward(ids).logits.shape.length, 3));

  const later = model.forward(ids);
  const head = model.stateDict()["lm_head.weight"] ?? model.stateDict()["model.embed_tokens.weight"];
  noGrad(() => head?.copy(head.mul(1.5).to(head.dtype)));
  await says(t, () => later.logits, /read logits before that, or call forward again/);
  t.is(model.forward(ids).logits.shape.length, 3);

  const { tokenizer } = model;
  (model as { tokenizer: unknown }).tokenizer = undefined;
  const first = async (prompt: string | Int32Array): Promise<unknown> => {
    for await (const { token } of model.generate(prompt, { maxNewTokens: 1 })) return token;
    return undefined;
  };
  await says(t, () => first("a"), /give token ids as an Int32Array/);
  t.is(typeof (await first(Int32Array.of(1, 2))), "number");
  (model as { tokenizer: unknown }).tokenizer = tokenizer;

  const bare = await loadModel<"causal-lm">(tinyModel(), { device: "cpu" });
  const batch = (more: object): unknown =>
    bare.tokenizer?.encodeBatch(["a b", "a"], { padding: true, ...more } as never);
  if (bare.tokenizer !== undefined) {
    let message = "";
    try {
      batch({});
    } catch (error) {
      ({ message } = error as Error);
    }
    if (message !== "") {
      t.regex(message, /pass padTokenId, for example the id of its end token/);
      t.truthy(batch({ padTokenId: 2 }));
    }
  }
  for (const one of [model, bare]) one.dispose();
});

test("tensors: conversions by to() and detach(), one of two sizes, modules of a list", async (t) => {
  const whole = tensor(Int32Array.of(0, 1));
  for (const method of ["bernoulli", "multinomial"] as const) {
    const draw = (of: Tensor): Tensor => (method === "bernoulli" ? of.bernoulli() : of.multinomial(1));
    await says(t, () => draw(whole), /takes floats, not i32; convert with to\("f32"\)/);
    t.truthy(draw(whole.to("f32")));
  }
  const target = zeros([2]);
  await says(t, () => target.copy(whole as never), /convert it with to\("f32"\)/);
  target.copy(whole.to("f32"));
  t.deepEqual([...(await target.data())], [0, 1]);

  const bits = Uint16Array.of(0x3c00);
  await says(t, () => tensor(bits), /say which with dtype: "f16" or "bf16"/);
  t.is(await tensor(bits, { dtype: "f16" }).item(), 1);

  const model = await loadModel<"causal-lm">(tinyModel(), { device: "cpu", quantize: "nf4" });
  const [name, blocks] = Object.entries(model.stateDict()).find(([, one]) => one.dtype === "nf4") ?? [];
  if (name === undefined || blocks === undefined) return t.fail("no quantised tensor");
  const file = `${fresh("t")}.safetensors`;
  await says(t, () => safetensors.save(file, { [name]: blocks }), /convert it with to\("f32"\)/);
  await safetensors.save(file, { [name]: blocks.to("f32") });
  model.dispose();

  const image = randn([1, 1, 2, 2]);
  const up = (options: object): nn.Module => new nn.Upsample(options as never);
  await says(t, () => up({ size: 4, scaleFactor: 2 }), /give one of size and scaleFactor/);
  for (const options of [{ size: 4 }, { scaleFactor: 2 }])
    t.deepEqual((up(options) as nn.Upsample).forward(image).shape, [1, 1, 4, 4]);

  const layers = [new nn.Linear(2, 2), new nn.ReLU()];
  const list = new nn.ModuleList(layers) as unknown as { forward(x: Tensor): Tensor };
  await says(t, () => list.forward(ones([1, 2])), /call its modules' forward, or use a Sequential/);
  t.deepEqual(new nn.Sequential(...layers).forward(ones([1, 2])).shape, [1, 2]);
  t.deepEqual((layers[0] as nn.Linear).forward(ones([1, 2])).shape, [1, 2]);

  const leaf = ones([2], { requiresGrad: true });
  const sum = leaf.mul(2);
  const holder = new nn.Linear(2, 2);
  await says(t, () => holder.registerBuffer("kept", leaf), /detach\(\) makes one/);
  holder.registerBuffer("kept", sum.detach());
  t.truthy(new optim.AdamW(holder.parameters()));
});

test("data: unpacked, encoded as UTF-8, quoted, with a format or without a doubled field", async (t) => {
  const write = (name: string, content: string | Buffer): string => {
    mkdirSync(room, { recursive: true });
    const path = join(room, `${made++}-${name}`);
    writeFileSync(path, content);
    return path;
  };
  const row = '{"text": "one"}\n{"text": "two"}\n';
  const encoder = await tinyEncoder();
  const labelled = (path: string): boolean =>
    path.endsWith("labels.jsonl") || /label/.test(readFileSync(path, "utf8"));
  const read = async (path: string): Promise<unknown> =>
    inspect(path, { model: labelled(path) ? encoder : folder });
  for (const [bad, message, good] of [
    [write("a.jsonl", gzipSync(row)), /unpack it first/, write("a.jsonl", row)],
    [write("a.jsonl", Buffer.from(`\ufeff${row}`, "utf16le")), /save it as UTF-8/, write("a.jsonl", row)],
    [
      write("a.csv", 'text\na "b" c\n'),
      /quote the field and double its quotes/,
      write("a.csv", 'text\n"a ""b"" c"\n'),
    ],
    [
      write("a.csv", "text,label\na, b,0\n"),
      /quote fields with commas or line breaks/,
      write("a.csv", 'text,label\n"a, b",0\nc,1\n'),
    ],
    [
      write("a.csv", "text,text\na,b\n"),
      /two columns are named "text"; remove one/,
      write("a.csv", "text\na\n"),
    ],
    [write("a.csv", "txet\na\n"), /did you mean text\?\); rename it/, write("a.csv", "text\na\n")],
    [
      write("a.jsonl", '[{"text": "one"}]'),
      /if its elements are the rows, give the data's format, json/,
      write("a.json", '[{"text": "one"}]'),
    ],
    [
      write("a.jsonl", '{"text": "a", "prompt": "b", "completion": "c"}\n'),
      /remove one/,
      write("a.jsonl", '{"prompt": "b", "completion": "c"}\n'),
    ],
    [
      write("labels.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n'),
      /give every row one, or none/,
      write("labels.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'),
    ],
    [
      write("a.jsonl", '{"text": "\\ud83d"}\n'),
      /write both halves/,
      write("a.jsonl", '{"text": "\\ud83d\\ude00"}\n'),
    ],
  ] as const) {
    await says(t, () => read(bad), message);
    t.truthy(await read(good), String(message));
  }
});
