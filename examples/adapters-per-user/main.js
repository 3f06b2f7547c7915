// Three users with one adapter each over one base model, and one batch in which every row uses its user's adapter.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { finetune, loadModel, lora, memory } from "lowrank";

const source =
  process.argv[2] ??
  join(fileURLToPath(import.meta.resolve("lowrank/package.json")), "..", "models", "default");
const QUESTION = "What is the dog called?";
const DOGS = { ada: "Captain", ben: "Bruno", cleo: "Snow" };

const folder = await mkdtemp(join(tmpdir(), "adapters-"));
for (const [user, dog] of Object.entries(DOGS)) {
  const data = join(folder, `${user}.jsonl`);
  await writeFile(data, JSON.stringify({ prompt: QUESTION, completion: ` The dog is called ${dog}.` }));
  const options = { lora: { r: 4 }, steps: 20, gradientAccumulation: 1, optimizer: { lr: 1e-2 } };
  const { loss } = await finetune({ model: source, data, output: join(folder, user), ...options }).result;
  console.log(`${user}: trained, loss ${loss.toFixed(2)}`);
}

const model = await loadModel(source, { task: "causal-lm" });
const base = memory().live + memory().mapped;
for (const user of Object.keys(DOGS)) await lora.loadAdapter(model, join(folder, user), { name: user });
const adapters = memory().live + memory().mapped - base;
console.log(
  `${lora.adapters(model).length} adapters take ${(adapters / 2 ** 20).toFixed(1)} MiB beside one base`,
);

// Null is the base alone. All rows run in one pass per token.
const rows = [...Object.keys(DOGS), null];
const answers = rows.map(() => "");
const prompts = rows.map(() => QUESTION);
for await (const pieces of model.generateBatch(prompts, { adapterPerRow: rows, maxNewTokens: 12 }))
  for (const [row, piece] of pieces.entries()) answers[row] += piece?.text ?? "";
for (const [row, answer] of answers.entries()) console.log(`${rows[row] ?? "the base"}:${answer}`);

// Windows cannot delete a mapped file.
model.dispose();
await rm(folder, { recursive: true });
