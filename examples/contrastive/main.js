// Trains sentence embeddings with InfoNCE: a question moves towards its answer and away from the other answers of the
// batch.
import { readFile } from "node:fs/promises";

import { arange, loadModel, lora, manualSeed, noGrad, optim, scope } from "lowrank";

const [STEPS, BATCH, TEMPERATURE] = [10, 4, 0.05];

// node main.js [MODEL] [ADAPTER]: an encoder's folder or name at the hub, and an adapter to continue from.
const [name = "sentence-transformers/all-MiniLM-L6-v2", adapter] = process.argv.slice(2);
const lines = await readFile(new URL("pairs.jsonl", import.meta.url), "utf8");
const pairs = lines.trim().split("\n").map(JSON.parse);

manualSeed(1);
const model = await loadModel(name, { task: "feature-extraction" });
if (adapter === undefined) {
  await lora.inject(model, { r: 4, loraAlpha: 8, targetModules: ["query", "value"] });
} else {
  await lora.loadAdapter(model, adapter, { trainable: true });
}

/** One unit vector per text, [B, C]: the mean over the text's tokens. */
function embed(texts) {
  const { ids, attentionMask, tokenTypeIds } = model.tokenizer.encodeBatch(texts, { maxLength: 64 });
  const { hidden } = model.forward(ids, { attentionMask, tokenTypeIds });
  const mask = attentionMask.to("f32").unsqueeze(2);
  const mean = hidden.mul(mask).sum(1).div(mask.sum(1));
  return mean.div(mean.norm(1, { keepDim: true }));
}

/** Cosine similarities of all questions with all answers, [B, B]. */
function similarities(batch) {
  const questions = embed(batch.map(({ question }) => question));
  const answers = embed(batch.map(({ answer }) => answer));
  return questions.matmul(answers.transpose(0, 1));
}

/** InfoNCE (van den Oord et al. 2018) with the batch's other answers as negatives. */
function infoNCE(batch) {
  return similarities(batch).div(TEMPERATURE).crossEntropy(arange(batch.length));
}

/** The fraction of questions for which the right answer is the most similar one. */
function accuracy() {
  return scope(async () => {
    const found = noGrad(() => similarities(pairs).argmax(1));
    const right = await found.eq(arange(pairs.length)).to("f32").mean().item();
    return `${(100 * right).toFixed(0)}%`;
  });
}

console.log(`answers found before: ${await accuracy()}`);

model.train();
const optimizer = new optim.AdamW(model.parameters({ trainable: true }), { lr: 5e-3 });
for (let step = 0; step < STEPS; step++) {
  const first = (step * BATCH) % pairs.length;
  const loss = scope(() => {
    const loss = infoNCE(pairs.slice(first, first + BATCH));
    loss.backward();
    optimizer.step();
    optimizer.zeroGrad();
    return loss;
  });
  console.log(`step ${step + 1}  loss ${(await loss.item()).toFixed(7)}`);
  loss.dispose();
}
model.eval();

console.log(`answers found after: ${await accuracy()}`);
await lora.saveAdapter(model, "adapter");
