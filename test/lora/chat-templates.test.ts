/** Adapters store the chat template that they were trained with. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { estimate, finetune, loadModel, lora, saveModel } from "../../src/index.js";
import type { CausalLM } from "../../src/models/causal-lm.js";
import { temporary, tinyModel } from "../hashed.js";

const FILE = "chat_template.jinja";
const template = (mark: string): string => `{% for m in messages %}${mark}{{ m.content }}{% endfor %}`;
const messages = [{ role: "user", content: "ahoy" }] as const;

/** Returns a model whose own template writes `base`. */
function chatModel(): Promise<CausalLM> {
  const folder = tinyModel({ maxPositions: 64 });
  writeFileSync(join(folder, FILE), template("base:"));
  return loadModel<"causal-lm">(folder, { device: "cpu" });
}

function rendered(model: CausalLM): string {
  return model.tokenizer?.applyChatTemplate(messages, { tokenize: false }) ?? "";
}

/** Returns the folder of an adapter whose template writes `mark`. */
async function adapter(mark: string): Promise<string> {
  const model = await chatModel();
  await lora.inject(model, { r: 2 });
  if (model.tokenizer !== undefined) model.tokenizer.chatTemplate = template(mark);
  const folder = temporary();
  await lora.saveAdapter(model, folder);
  model.dispose();
  return folder;
}

test("an adapter's folder contains the template that was in use, and replaces another adapter's file", async (t) => {
  t.is(readFileSync(join(await adapter("a:"), FILE), "utf8"), template("a:"));
  const model = await chatModel();
  await lora.inject(model, { r: 2 });
  const folder = temporary();
  await lora.saveAdapter(model, folder);
  t.is(readFileSync(join(folder, FILE), "utf8"), template("base:"));
  model.dispose();
  // An adapter without a template removes an earlier adapter's template.
  const bare = await loadModel<"causal-lm">(tinyModel({ maxPositions: 64 }), { device: "cpu" });
  await lora.inject(bare, { r: 2 });
  await lora.saveAdapter(bare, folder);
  t.false(existsSync(join(folder, FILE)));
  bare.dispose();
});

test("the model uses the template of the active adapter: loading, activating, disabling, deleting", async (t) => {
  const model = await chatModel();
  t.is(rendered(model), "base:ahoy");
  await lora.loadAdapter(model, await adapter("a:"), { name: "a" });
  t.is(rendered(model), "a:ahoy");
  await lora.loadAdapter(model, await adapter("b:"), { name: "b" });
  t.is(rendered(model), "a:ahoy");
  lora.setAdapter(model, "b");
  t.is(rendered(model), "b:ahoy");
  t.is(
    lora.withoutAdapters(model, () => rendered(model)),
    "base:ahoy",
  );
  // Each adapter is saved with its template, whichever is active.
  const folder = temporary();
  await lora.saveAdapter(model, folder, { name: "a" });
  t.is(readFileSync(join(folder, "a", FILE), "utf8"), template("a:"));
  await lora.hotSwap(model, await adapter("c:"), { name: "b" });
  t.is(rendered(model), "c:ahoy");
  lora.deleteAdapter(model, "b");
  t.is(rendered(model), "base:ahoy");
  lora.setAdapter(model, "a");
  t.is(rendered(model), "a:ahoy");
  if (model.tokenizer !== undefined) model.tokenizer.chatTemplate = template("assigned:");
  t.is(rendered(model), "assigned:ahoy");
  if (model.tokenizer !== undefined) model.tokenizer.chatTemplate = undefined;
  lora.unload(model);
  t.is(rendered(model), "base:ahoy");
  model.dispose();
});

test.serial(
  "if templates of active adapters differ, the first adapter's is used, and a warning names them",
  async (t) => {
    const model = await chatModel();
    const warnings: string[] = [];
    const listen = ({ message }: Error): void => void warnings.push(message);
    process.on("warning", listen);
    try {
      await lora.loadAdapter(model, await adapter("a:"), { name: "a" });
      await lora.loadAdapter(model, await adapter("b:"), { name: "b" });
      await lora.loadAdapter(model, await adapter("a:"), { name: "same" });
      lora.setAdapter(model, ["a", "same"]);
      t.is(rendered(model), "a:ahoy");
      await new Promise(setImmediate);
      t.deepEqual(warnings, []);
      lora.setAdapter(model, ["b", "a"]);
      t.is(rendered(model), "b:ahoy");
      t.is(rendered(model), "b:ahoy");
      await new Promise(setImmediate);
      t.is(warnings.length, 1);
      t.regex(
        warnings[0] ?? "",
        /"b" and "a" were trained with different chat templates; using the one of "b"/,
      );
    } finally {
      process.off("warning", listen);
    }
    await lora.addWeightedAdapter(model, "sum", { a: 0.5, same: 0.5 }, { combination: "svd" });
    lora.setAdapter(model, "sum");
    t.is(rendered(model), "a:ahoy");
    model.dispose();
  },
);

test("a run of a loaded model from an adapter does not change the model's own template", async (t) => {
  const model = await chatModel();
  const options = { adapter: await adapter("a:"), steps: 1, dashboard: false } as const;
  await finetune({ model, data: [{ text: "ahoy" }], output: temporary(), ...options }).result;
  t.is(rendered(model), "a:ahoy");
  lora.unload(model);
  t.is(rendered(model), "base:ahoy");
  if (model.tokenizer !== undefined) model.tokenizer.chatTemplate = template("assigned:");
  await finetune({ model, data: [{ text: "ahoy" }], output: temporary(), ...options }).result;
  t.is(rendered(model), "assigned:ahoy");
  model.dispose();
});

test("a resumed run is estimated with the template in its checkpoint if the adapter is gone", async (t) => {
  const [folder, output] = [await adapter("a:"), temporary()];
  const model = tinyModel({ maxPositions: 64 });
  const file = join(temporary(), "rows.jsonl");
  const answer = { role: "assistant", content: "aye" };
  writeFileSync(file, `${JSON.stringify({ messages: [...messages, answer] })}\n`);
  await finetune({ model, adapter: folder, data: file, output, steps: 1, device: "cpu" }).result;
  rmSync(folder, { recursive: true });
  t.true((await estimate({ resume: output, steps: 2 })).fits);
});

test("a merged model has the template of its adapter, as a folder and in memory", async (t) => {
  const model = await chatModel();
  await lora.loadAdapter(model, await adapter("a:"));
  await lora.mergeAndUnload(model);
  t.is(rendered(model), "a:ahoy");
  const folder = join(temporary(), "merged");
  await saveModel(model, folder);
  model.dispose();
  const merged = await loadModel<"causal-lm">(folder, { device: "cpu" });
  t.is(rendered(merged), "a:ahoy");
  merged.dispose();
});

test("older adapters have the template in tokenizer_config.json, and tools have a separate one", async (t) => {
  const folder = await adapter("a:");
  const [plain, tool] = [template("plain:"), template("tools:")];
  const named = [
    { name: "default", template: plain },
    { name: "tool_use", template: tool },
  ];
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: named }));
  rmSync(join(folder, FILE));
  const model = await chatModel();
  await lora.loadAdapter(model, folder);
  const tools = [{ type: "function", function: { name: "f" } }];
  const withTools = (of: CausalLM): unknown =>
    of.tokenizer?.applyChatTemplate(messages, { tokenize: false, tools });
  t.is(rendered(model), "plain:ahoy");
  t.is(withTools(model), "tools:ahoy");
  const again = temporary();
  await lora.saveAdapter(model, again);
  t.is(readFileSync(join(again, "additional_chat_templates", "tool_use.jinja"), "utf8"), tool);
  lora.unload(model);
  await lora.loadAdapter(model, again);
  t.is(rendered(model), "plain:ahoy");
  t.is(withTools(model), "tools:ahoy");
  // A model's folder stores both templates in the same way.
  const source = model.folder ?? "";
  mkdirSync(join(source, "additional_chat_templates"), { recursive: true });
  writeFileSync(join(source, "additional_chat_templates", "tool_use.jinja"), tool);
  const own = await loadModel<"causal-lm">(source, { device: "cpu" });
  t.is(withTools(own), "tools:ahoy");
  const saved = join(temporary(), "saved");
  await saveModel(own, saved);
  t.true(existsSync(join(saved, "additional_chat_templates", "tool_use.jinja")));
  model.dispose();
  own.dispose();
});

test("converting to PEFT's folder keeps the template; an unreadable one is an error", async (t) => {
  const [from, to] = [await adapter("a:"), join(temporary(), "copy")];
  await lora.convertAdapter(from, to, { format: "peft" });
  t.is(readFileSync(join(to, FILE), "utf8"), template("a:"));
  writeFileSync(join(from, FILE), "x".repeat((4 << 20) + 1));
  const model = await chatModel();
  await t.throwsAsync(lora.loadAdapter(model, from), { code: "ERR_FILE_FORMAT", message: /chat_template/ });
  t.deepEqual(lora.adapters(model), []);
  model.dispose();
});
