import fc from "fast-check";
import test from "ava";
import { buildAttentionMask, BatchPlan, buildBatch } from "../../src/data/batches.js";
import type { Encoder, Example } from "../../src/data/examples.js";
import { tokenizeLabelled, resolveLabelNames } from "../../src/data/labels.js";
import { type LabelData, checkTextData } from "../../src/data/read.js";
import { LowrankError } from "../../src/errors.js";
import { labelled as data } from "./sources.js";

const [CLS, SEP] = [1, 2];

/** Encodes a letter as a token, between CLS and SEP. */
const letters: Encoder = {
  encode: (text, { addSpecialTokens = true } = {}) => {
    const ids = [...text].map((letter) => letter.charCodeAt(0));
    return Int32Array.from(addSpecialTokens ? [CLS, ...ids, SEP] : ids);
  },
};

const code = (text: string): number[] => [...text].map((letter) => letter.charCodeAt(0));

const names = ["ham", "spam"];
const examples = async (given: Promise<LabelData>, maxLength = 100): Promise<Example[]> => [
  ...(await tokenizeLabelled(await given, names, letters, { maxLength })),
];

test("classes are sorted: names as text, whole numbers by value", async (t) => {
  t.deepEqual(resolveLabelNames(await data(["a", "spam"], ["b", "ham"], ["c", "spam"])), names);
  t.deepEqual(resolveLabelNames(await data(["a", 10], ["b", 9], ["c", -1])), ["-1", "9", "10"]);
  t.deepEqual(resolveLabelNames(await data(["a", 10], ["b", "9"], ["c", "10"])), ["10", "9"]);
  const model = ["spam", "eggs", "ham"];
  t.deepEqual(
    resolveLabelNames(await data(["a", "spam"], ["b", "ham"]), model),
    model,
    "the model's own order",
  );
  t.deepEqual(resolveLabelNames(await data(["a", "spam"], ["b", "tea"]), model), ["spam", "tea"]);
  const same = await data(["a", "spam"], ["b", "spam"]);
  const error = t.throws(() => resolveLabelNames(same), { instanceOf: LowrankError });
  t.is(error.code, "ERR_DATA_ROW");
  t.regex(error.message, /: every row has the label spam/);
});

test("a label that is a misspelled class of the model is refused", async (t) => {
  const known = ["negative", "positive"];
  const misspelled = await data(["a", "positive"], ["b", "negative"], ["c", "postive"]);
  const message =
    /:3: the label "postive" is not one of the model's classes \(did you mean positive\?\); they are/;
  t.throws(() => resolveLabelNames(misspelled, known), { code: "ERR_DATA_ROW", message });
  t.deepEqual(resolveLabelNames(misspelled), ["negative", "positive", "postive"]);
  // Another number, and a name that is similar to none, are new classes.
  t.deepEqual(resolveLabelNames(await data(["a", "LABEL_0"], ["b", "LABEL_2"]), ["LABEL_0", "LABEL_1"]), [
    "LABEL_0",
    "LABEL_2",
  ]);
  const held = examples(data(["a", "ham"], ["b", "spma"]));
  await t.throwsAsync(held, {
    message: /:2: the label "spma" is not one of the classes \(did you mean spam\?\)/,
  });
});

test("a row is its text and its class; a number's name is its class, too", async (t) => {
  const [ham, spam] = await examples(data(["ab", "ham"], ["", "spam"]));
  t.deepEqual([...(ham as Example).ids], [CLS, ...code("ab"), SEP]);
  t.deepEqual([...(ham as Example).labels], [0]);
  t.is(ham?.trained, 1);
  t.deepEqual([...(spam as Example).ids], [CLS, SEP]);
  t.deepEqual([...(spam as Example).labels], [1]);
  const [nine] = [...(await tokenizeLabelled(await data(["a", 9]), ["9", "10"], letters, { maxLength: 10 }))];
  t.deepEqual([...(nine as Example).labels], [0]);
});

test("a row longer than the maximum is truncated, and keeps its end token", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.string({ maxLength: 12 }), fc.integer({ min: 2, max: 14 }), async (text, most) => {
      const plain = text.replaceAll(/[^ -~]/g, "x");
      const [one] = await examples(data([plain, "ham"]), most);
      t.deepEqual([...(one as Example).ids], [CLS, ...code(plain).slice(0, most - 2), SEP]);
    }),
    { numRuns: 30 },
  );
  const tail: Encoder = { encode: (text) => Int32Array.from(code(text)) };
  const [bare] = await tokenizeLabelled(await data(["abcd", "ham"]), names, tail, { maxLength: 3 });
  t.deepEqual([...(bare as Example).ids], code("abc"));
});

test("a label outside the classes and a row without tokens are named by file and line", async (t) => {
  const stranger = await t.throwsAsync(examples(data(["a", "ham"], ["b", "eggs"])), {
    instanceOf: LowrankError,
    message: /:2: the label "eggs" is not one of the classes; they are ham, spam$/,
  });
  t.is(stranger.code, "ERR_DATA_ROW");
  const bare: Encoder = { encode: (text) => Int32Array.from(code(text)) };
  const empty = tokenizeLabelled(await data(["a", "ham"], ["", "ham"]), names, bare, { maxLength: 3 });
  await t.throwsAsync(empty, { message: /:2: the row's text has no tokens/ });
});

test("a language model refuses rows with labels", async (t) => {
  const rows = await data(["a", "ham"]);
  const error = t.throws(() => checkTextData(rows), { instanceOf: LowrankError });
  t.is(error.code, "ERR_DATA_ROW");
  t.regex(error.message, /:1: the row has a "label"/);
});

test("a batch has a label for each row and a mask over its tokens", async (t) => {
  const rows = await examples(data(["abc", "spam"], ["", "ham"]));
  const batch = buildBatch(rows, 7);
  t.deepEqual(batch.shape, [2, 5]);
  t.deepEqual([...batch.ids], [CLS, ...code("abc"), SEP, CLS, SEP, 7, 7, 7]);
  t.deepEqual([...batch.labels], [1, 0]);
  t.deepEqual([...buildAttentionMask(batch)], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]);
  t.is(batch.trained, 2);
  const plan = (given: Example[]): string =>
    new BatchPlan(given, { batchSize: 1, gradientAccumulation: 1, seed: 0, padTokenId: 0 }).createCursor(0)
      .data;
  const swapped = await examples(data(["abc", "ham"], ["", "spam"]));
  t.not(plan(rows), plan(swapped));
});
