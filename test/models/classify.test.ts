/** `classify` agrees with the logits of `forward`, for texts of any length, in their order. */
import test from "ava";

import {
  BertForSequenceClassification,
  loadModel,
  LowrankError,
  tensor,
  type SequenceClassifier,
} from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";
import { tinyEncoder } from "../tiny-encoder.js";
import { words } from "../hashed.js";

const TEXTS = [
  "b",
  "the whale is white",
  "",
  "a ship at sea and no land in sight at all, for weeks on end",
  "land",
  "sss waves",
];

async function classifier(device: "cpu" | "gpu" = "cpu", numLabels = 3): Promise<SequenceClassifier> {
  const options = { device, task: "sequence-classification", numLabels, onNotice: () => {} } as const;
  const model = await loadModel(await tinyEncoder(), options);
  // A head that gives the texts distinct classes.
  for (const [path, parameter] of model.namedParameters()) {
    if (!path.startsWith("classifier")) continue;
    const scale = path.endsWith("weight") ? 40 : 0;
    const values = Float32Array.from(
      words(path, parameter.size),
      (word) => ((word >>> 0) / 2 ** 32 - 0.5) * scale,
    );
    parameter.copy(tensor(values, { shape: [...parameter.shape], device }));
  }
  return model;
}

/** Returns the logits of a single text. */
async function logitsOf(model: SequenceClassifier, text: string): Promise<number[]> {
  const ids = model.tokenizer?.encode(text) as Int32Array;
  const kept = ids.length > 32 ? Int32Array.from([...ids.subarray(0, 31), 2]) : ids;
  const { logits } = model.forward(tensor(kept, { shape: [1, kept.length], device: model.device }));
  return [...((await logits.data()) as Float32Array)];
}

/** Whether two values agree up to a few roundings of f32: padding changes the order of summation. */
const near = (a: number, b: number): boolean => Math.abs(a - b) < 1e-5 * Math.max(1, Math.abs(b));

for (const device of testDevices()) {
  test.serial(
    `on ${device}: a class and scores for each text, in input order, in batches of any size`,
    async (t) => {
      const model = await classifier(device);
      t.deepEqual(await model.classify([]), []);
      await model.classify(TEXTS);
      const { tensors } = await atRest(device);
      const all = [];
      for (const batchSize of [1, 2, 32]) all.push(await model.classify(TEXTS, { batchSize }));
      t.is((await atRest(device)).tensors, tensors);
      const [found = []] = all;
      for (const other of all)
        for (const [i, { label, scores }] of other.entries()) {
          t.is(label, found[i]?.label as string);
          for (const [name, score] of Object.entries(scores))
            t.true(near(score, found[i]?.scores[name] as number));
        }
      t.is(new Set(found.map(({ label }) => label)).size > 1, true);
      for (const [i, text] of TEXTS.entries()) {
        const logits = await logitsOf(model, text);
        const { label, scores, labels, truncated } = found[i] as (typeof found)[number];
        const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
        t.is(label, `LABEL_${logits.indexOf(Math.max(...logits))}`);
        for (const [id, logit] of logits.entries())
          t.true(near(scores[`LABEL_${id}`] as number, Math.exp(logit) / sum), `${text} ${id}`);
        t.is(labels, undefined);
        t.is(truncated, text.length > 30);
      }
      model.dispose();
    },
  );
}

test("multi-label scores are sigmoids, and regression scores are the values", async (t) => {
  const model = await classifier();
  model.config.problemType = "multi_label_classification";
  for (const [i, { label, labels, scores }] of (await model.classify(TEXTS)).entries()) {
    const logits = await logitsOf(model, TEXTS[i] as string);
    for (const [id, logit] of logits.entries())
      t.true(near(scores[`LABEL_${id}`] as number, 1 / (1 + Math.exp(-logit))));
    t.deepEqual(
      labels,
      logits.flatMap((logit, id) => (logit >= 0 ? [`LABEL_${id}`] : [])),
    );
    t.is(label, `LABEL_${logits.indexOf(Math.max(...logits))}`);
  }
  model.dispose();
  const single = await classifier("cpu", 1);
  for (const [i, { scores }] of (await single.classify(TEXTS)).entries())
    t.true(near(scores["LABEL_0"] as number, (await logitsOf(single, TEXTS[i] as string))[0] as number));
  single.dispose();
});

test("topK limits the scores, and maxLength truncates texts with a notice", async (t) => {
  const model = await classifier();
  const [all, two] = [await model.classify(TEXTS), await model.classify(TEXTS, { topK: 2 })];
  for (const [i, { scores, label }] of two.entries()) {
    const lowest = Math.min(...Object.values(all[i]?.scores as object));
    t.is(Object.keys(scores).length, 2);
    t.true(Object.values(scores).every((score) => score > lowest) && label in scores);
  }
  const cut = await model.classify(TEXTS, { maxLength: 6 });
  t.deepEqual(
    cut.map(({ truncated }) => truncated),
    TEXTS.map((text) => text.length > 4),
  );
  t.is(cut[1]?.label, (await model.classify(["the "]))[0]?.label as string);
  model.dispose();
});

test("arguments are validated", async (t) => {
  const model = await classifier();
  const cases: [unknown, unknown, RegExp][] = [
    ["text", {}, /^ERR_OPTION classify: texts must be an array, got "text"$/],
    [[1], {}, /^ERR_OPTION classify: texts\[0\] must be a string, got 1$/],
    [["a"], { batchSize: 0 }, /^ERR_OPTION classify: batchSize must be a whole number of at least 1, got 0$/],
    [["a"], { topK: 0 }, /^ERR_OPTION classify: topK/],
    [["a"], { maxLength: 0.5 }, /^ERR_OPTION classify: maxLength/],
    [["a"], { size: 1 }, /^ERR_OPTION classify: there is no option size/],
    [["a"], { signal: 1 }, /^ERR_OPTION classify: signal/],
  ];
  for (const [texts, options, message] of cases) {
    const error = await t.throwsAsync(model.classify(texts as string[], options as object), {
      instanceOf: LowrankError,
    });
    t.regex(`${(error as LowrankError).code} ${error?.message}`, message);
  }
  const reason = new Error("enough");
  await t.throwsAsync(model.classify(["a"], { signal: AbortSignal.abort(reason) }), { is: reason });
  for (const [path, parameter] of model.namedParameters())
    if (path === "classifier.bias") parameter.copy(parameter.mul(NaN));
  await t.throwsAsync(model.classify(["a"]), { code: "ERR_NOT_FINITE" });
  t.true(model instanceof BertForSequenceClassification);
  model.dispose();
});
