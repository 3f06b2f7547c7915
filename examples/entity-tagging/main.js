// Finds persons and places in a text: an encoder with a tag for each word, trained with LoRA and a new head.
import { readFile } from "node:fs/promises";

import { loadModel, lora, manualSeed, nn, noGrad, optim, scope, tensor } from "lowrank";

const [STEPS, BATCH] = [10, 4];
const TAGS = ["O", "B-person", "I-person", "B-place", "I-place"];

// node main.js [MODEL] [ADAPTER]: an encoder's folder or name at the hub, and an adapter to continue from.
const [name = "google-bert/bert-base-cased", adapter] = process.argv.slice(2);
const lines = await readFile(new URL("sentences.jsonl", import.meta.url), "utf8");
const sentences = lines.trim().split("\n").map(JSON.parse);

/** An encoder with a linear layer that scores the tags of each token. */
class Tagger extends nn.Module {
  constructor(encoder) {
    super();
    this.encoder = encoder;
    this.head = new nn.Linear(encoder.config.hiddenSize, TAGS.length);
  }

  /** A batch of texts → logits [B, T, tags]. */
  forward({ ids, attentionMask, tokenTypeIds }) {
    return this.head.forward(this.encoder.forward(ids, { attentionMask, tokenTypeIds }).hidden);
  }
}

manualSeed(1);
const encoder = await loadModel(name, { task: "feature-extraction" });
const model = new Tagger(encoder);
if (adapter === undefined) {
  await lora.inject(model, {
    r: 4,
    loraAlpha: 8,
    targetModules: ["query", "value"],
    modulesToSave: ["head"],
  });
} else {
  await lora.loadAdapter(model, adapter, { trainable: true });
}

const encode = (texts) => encoder.tokenizer.encodeBatch(texts, { maxLength: 64, wordIds: true });

/** Whether token t is the first of a word; special tokens and padding are not. */
const beginsWord = (wordIds, t) => wordIds[t] !== null && wordIds[t] !== wordIds[t - 1];

/** Returns the tag of each token, flat: the entity's tag for the first token of a word, -100 for the others. */
function labelsOf(rows, { offsets, wordIds }) {
  const labels = rows.flatMap(({ entities }, b) =>
    offsets[b].map(([start], t) => {
      if (!beginsWord(wordIds[b], t)) return -100;
      const entity = entities.find((one) => one.start <= start && start < one.end);
      if (entity === undefined) return TAGS.indexOf("O");
      return TAGS.indexOf(`${start === entity.start ? "B" : "I"}-${entity.kind}`);
    }),
  );
  return tensor(Int32Array.from(labels));
}

function taggingLoss(rows) {
  const batch = encode(rows.map(({ text }) => text));
  return model.forward(batch).reshape(-1, TAGS.length).crossEntropy(labelsOf(rows, batch));
}

/** Returns each tagged word of a text with its tag. */
async function tagged(text) {
  const batch = encode([text]);
  const best = scope(() => noGrad(() => model.forward(batch).argmax(2)));
  const tags = await best.data();
  const [offsets, wordIds] = [batch.offsets[0], batch.wordIds[0]];
  return offsets.flatMap(([start], t) => {
    if (!beginsWord(wordIds, t) || TAGS[tags[t]] === "O") return [];
    const [, end] = offsets[wordIds.lastIndexOf(wordIds[t])];
    return [`${text.slice(start, end)} (${TAGS[tags[t]]})`];
  });
}

model.train();
const optimizer = new optim.AdamW(model.parameters({ trainable: true }), { lr: 5e-3 });
for (let step = 0; step < STEPS; step++) {
  const first = (step * BATCH) % sentences.length;
  const loss = scope(() => {
    const loss = taggingLoss(sentences.slice(first, first + BATCH));
    loss.backward();
    optimizer.step();
    optimizer.zeroGrad();
    return loss;
  });
  console.log(`step ${step + 1}  loss ${(await loss.item()).toFixed(7)}`);
  loss.dispose();
}
model.eval();

for (const { text } of sentences.slice(0, 2)) console.log(`${text} → ${(await tagged(text)).join(", ")}`);
await lora.saveAdapter(model, "adapter");
