// Direct preference optimization (Rafailov et al. 2023): the model learns to prefer one answer over another. The model
// without its adapter is the reference.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { loadModel, lora, manualSeed, noGrad, optim, scope, tensor } from "lowrank";

const [STEPS, BATCH, BETA] = [10, 4, 0.1];

// node main.js [MODEL] [ADAPTER]: a language model, by default the package's, and an adapter to continue from.
const embedded = join(fileURLToPath(import.meta.resolve("lowrank/package.json")), "..", "models", "default");
const [name = embedded, adapter] = process.argv.slice(2);
const lines = await readFile(new URL("preferences.jsonl", import.meta.url), "utf8");
const preferences = lines.trim().split("\n").map(JSON.parse);

manualSeed(1);
const model = await loadModel(name, { task: "causal-lm" });
if (adapter === undefined) {
  await lora.inject(model, { r: 4, loraAlpha: 8, targetModules: ["q_proj", "v_proj"] });
} else {
  await lora.loadAdapter(model, adapter, { trainable: true });
}

/** Token ids of a prompt and its completion; labels are -100 for the prompt. */
function encode(prompt, completion) {
  const before = [...model.tokenizer.encode(prompt, { addSpecialTokens: false })];
  const after = [
    ...model.tokenizer.encode(completion, { addSpecialTokens: false }),
    model.config.eosTokenIds[0],
  ];
  return { ids: [...before, ...after], labels: [...before.map(() => -100), ...after] };
}

/** Chosen answers, then rejected ones, padded on the right to one length: tensors [2B, T]. */
function collate(rows) {
  const texts = [
    ...rows.map(({ prompt, chosen }) => encode(prompt, chosen)),
    ...rows.map(({ prompt, rejected }) => encode(prompt, rejected)),
  ];
  const shape = [texts.length, Math.max(...texts.map(({ ids }) => ids.length))];
  const padded = (lists, value) =>
    tensor(
      Int32Array.from(lists.flatMap((list) => [...list, ...Array(shape[1] - list.length).fill(value)])),
      { shape },
    );
  return {
    ids: padded(
      texts.map(({ ids }) => ids),
      0,
    ),
    labels: padded(
      texts.map(({ labels }) => labels),
      -100,
    ),
    attentionMask: padded(
      texts.map(({ ids }) => ids.map(() => 1)),
      0,
    ),
  };
}

/** log p(completion | prompt) of each row, [2B]. */
function logProbabilities({ ids, labels, attentionMask }) {
  return model.loss(ids, labels, { attentionMask, reduction: "none" }).sum(1).neg();
}

/** −log σ(β · (how much more the model prefers the chosen answers than the reference does)). */
function dpoLoss(rows) {
  const batch = collate(rows);
  const policy = logProbabilities(batch);
  const reference = noGrad(() => lora.withoutAdapters(model, () => logProbabilities(batch)));
  const [chosen, rejected] = policy.sub(reference).split(rows.length);
  return chosen.sub(rejected).mul(BETA).logSigmoid().mean().neg();
}

model.train();
const optimizer = new optim.AdamW(model.parameters({ trainable: true }), { lr: 5e-3 });
for (let step = 0; step < STEPS; step++) {
  const first = (step * BATCH) % preferences.length;
  const loss = scope(() => {
    const loss = dpoLoss(preferences.slice(first, first + BATCH));
    loss.backward();
    optimizer.step();
    optimizer.zeroGrad();
    return loss;
  });
  console.log(`step ${step + 1}  loss ${(await loss.item()).toFixed(7)}`);
  loss.dispose();
}
await lora.saveAdapter(model, "adapter");
