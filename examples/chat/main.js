// Fine-tunes a chat model on the conversations in chats.jsonl, and asks it the same question before and after.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { finetune, loadModel, lora } from "lowrank";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const { values } = parseArgs({
  options: {
    // A folder, a GGUF file, or a name at the hub. Default: the package's embedded model.
    model: { type: "string" },
    data: { type: "string", default: here("chats.jsonl") },
    output: { type: "string", default: "adapter" },
    steps: { type: "string", default: "40" },
    lr: { type: "string", default: "5e-3" },
    ask: { type: "string", default: "Who keeps the lighthouse?" },
  },
});
const embedded = join(fileURLToPath(import.meta.resolve("lowrank/package.json")), "..", "models", "default");
const source = values.model ?? embedded;
// The embedded model has no chat template.
const chatTemplate = values.model === undefined ? here("chat.jinja") : undefined;

const model = await loadModel(source, { task: "causal-lm" });
if (chatTemplate !== undefined) model.tokenizer.chatTemplate = await readFile(chatTemplate, "utf8");

async function answer() {
  let text = "";
  const messages = [{ role: "user", content: values.ask }];
  for await (const piece of model.generate(messages, { maxNewTokens: 24 })) text += piece.text;
  return text.trim();
}

console.log(`before: ${await answer()}`);

const run = finetune({
  model: source,
  data: values.data,
  output: values.output,
  chatTemplate,
  steps: Number(values.steps),
  optimizer: { lr: Number(values.lr) },
});
for await (const event of run) {
  if (event.type === "warning") console.error(event.message);
  if (event.type === "step" && event.step % 10 === 0)
    console.log(`step ${event.step} of ${event.steps}: loss ${event.loss.toFixed(3)}`);
}
const { adapter } = await run.result;

await lora.loadAdapter(model, adapter);
console.log(`after: ${await answer()}`);
