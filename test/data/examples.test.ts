import fc from "fast-check";
import test from "ava";
import type { Encoder } from "../../src/data/encode.js";
import { tokenizeRows, keepTrained, type ExampleOptions } from "../../src/data/examples.js";
import { type DataReport, listWarnings } from "../../src/data/report.js";
import { splitHeldOut } from "../../src/data/split.js";
import { type Example, ExampleStore, computeFingerprint, countTrained } from "../../src/data/store.js";
import { LowrankError } from "../../src/errors.js";
import { rowsOf, runningText } from "./sources.js";

const BOS = 1;
const EOS = 2;

/** Encodes a letter as a token, with BOS in front, and EOS at the end if `addsEos`. "$" is the text of EOS. */
function letters({ addsEos = false } = {}): Encoder {
  return {
    encode: (text, { addSpecialTokens = true } = {}) => {
      const ids = [...text].map((letter) => (letter === "$" ? EOS : letter.charCodeAt(0)));
      return Int32Array.from(addSpecialTokens ? [BOS, ...ids, ...(addsEos ? [EOS] : [])] : ids);
    },
  };
}

const options: ExampleOptions = { maxLength: 100, eosTokenIds: [EOS, 9] };
const limitedTo = (maxLength: number) => ({ maxLength, modelLength: 100 });
const code = (text: string): number[] => [...text].map((letter) => letter.charCodeAt(0));

async function exampleOf(
  row: object,
  encoder: Encoder,
  more: Partial<ExampleOptions> = {},
): Promise<Example> {
  const examples = await tokenizeRows(await rowsOf(row), encoder, { ...options, ...more });
  return examples.at(0) as Example;
}

test("a text row ends with the end token and trains on all tokens", async (t) => {
  const one = await exampleOf({ text: "ab" }, letters());
  t.deepEqual([...one.ids], [BOS, ...code("ab"), EOS]);
  t.deepEqual([...one.labels], [...one.ids]);
  t.is(one.trained, 3);
});

test("the end token is not doubled", async (t) => {
  const own = await exampleOf({ text: "ab" }, letters({ addsEos: true }));
  t.deepEqual([...own.ids], [BOS, ...code("ab"), EOS]);
  const written = await exampleOf({ text: "ab$" }, letters());
  t.deepEqual([...written.ids], [BOS, ...code("ab"), EOS]);
  const row = { prompt: "a", completion: "b$" };
  t.deepEqual([...(await exampleOf(row, letters())).ids], [BOS, ...code("ab"), EOS]);
});

test("prompt and completion are encoded separately and joined directly, and the prompt is not trained on", async (t) => {
  const row = { prompt: "ab", completion: "cd" };
  for (const encoder of [letters(), letters({ addsEos: true })]) {
    const one = await exampleOf(row, encoder);
    t.deepEqual([...one.ids], [BOS, ...code("abcd"), EOS]);
    t.deepEqual([...one.labels], [-100, -100, -100, ...code("cd"), EOS]);
    t.is(one.trained, 3);
  }
  const all = await exampleOf(row, letters(), { trainOn: "all" });
  t.deepEqual([...all.labels], [...all.ids]);
  t.is(all.trained, 5);
});

test("an end token within the prompt stays, and the end token added by the tokenizer is removed", async (t) => {
  const row = { prompt: "a$", completion: "b" };
  for (const encoder of [letters(), letters({ addsEos: true })]) {
    t.deepEqual([...(await exampleOf(row, encoder)).ids], [BOS, ...code("a"), EOS, ...code("b"), EOS]);
  }
});

test("an empty completion trains on the end token, even if the prompt ends with it", async (t) => {
  const one = await exampleOf({ prompt: "a$", completion: "" }, letters());
  t.deepEqual([...one.labels], [-100, -100, -100, EOS]);
});

test("a row longer than maxLength is truncated", async (t) => {
  const row = { prompt: "abc", completion: "def" };
  const cut = await exampleOf(row, letters(), { maxLength: 5 });
  t.deepEqual([...cut.labels], [-100, -100, -100, -100, ...code("d")]);
  t.is(cut.trained, 1);
  t.is((await exampleOf(row, letters(), { maxLength: 4 })).trained, 0);
});

test("running text becomes blocks without overlap, the last one short, without an end token", async (t) => {
  const blocks = await tokenizeRows(await runningText("abcdef"), letters(), { ...options, maxLength: 3 });
  t.deepEqual(
    [...blocks].map((one) => [...one.ids]),
    [[BOS, ...code("ab")], code("cde"), code("f")],
  );
  t.deepEqual(
    [...blocks].map((one) => one.trained),
    [2, 2, 0],
  );
  t.deepEqual(
    blocks.reports.flatMap((report) => listWarnings(report, limitedTo(3))),
    [],
  );
});

test("rows with nothing to train on are skipped; an error if all are", async (t) => {
  const long = { prompt: "abc", completion: "def" };
  const both = await tokenizeRows(await rowsOf(long, { text: "a" }), letters(), { ...options, maxLength: 4 });
  t.deepEqual(
    [...keepTrained(both, "f", limitedTo(4))].map((one) => [...one.ids]),
    [[BOS, ...code("a"), EOS]],
  );
  const none = await tokenizeRows(await rowsOf(long), letters(), { ...options, maxLength: 4 });
  const error = t.throws(() => keepTrained(none, "f", limitedTo(4)), { instanceOf: LowrankError });
  t.is(error.code, "ERR_NO_TRAINED_TOKENS");
});

test("truncated, mostly truncated and skipped rows are counted and reported with the first line", async (t) => {
  const data = await rowsOf(
    { text: "ab" },
    { text: "abcdef" },
    { text: "a".repeat(20) },
    { prompt: "abcdefgh", completion: "x" },
    { text: "abc" },
  );
  const { reports } = await tokenizeRows(data, letters(), { ...options, maxLength: 5 });
  const [report] = reports as [DataReport];
  t.like(report, { rows: 5, cut: 2, mostlyCut: 1, dropped: 1 });
  t.deepEqual(report.first, { cut: 2, mostlyCut: 3, dropped: 4 });
  const [cut, left] = listWarnings(report, limitedTo(5));
  t.regex(
    cut ?? "",
    /2 of 5 rows are longer than 5 tokens and truncated \(first line 2\), 1 of them by more than half \(first line 3\); a larger maxLength, up to the model's 100, keeps more of them$/,
  );
  t.regex(left ?? "", /1 of 5 rows is skipped \(first line 4\)/);
});

test("at the model's maximum length no larger one is advised", async (t) => {
  const long = { prompt: "abcdefgh", completion: "x" };
  const data = await rowsOf({ text: "abcdef" }, long);
  const { reports } = await tokenizeRows(data, letters(), { ...options, maxLength: 5 });
  const [report] = reports as [DataReport];
  const atLimit = { maxLength: 5, modelLength: 5 };
  const [cut] = listWarnings(report, atLimit);
  t.regex(cut ?? "", /truncated .*; the model reads at most 5 tokens, so split or shorten such rows$/);
  const none = await tokenizeRows(await rowsOf(long), letters(), { ...options, maxLength: 5 });
  t.throws(() => keepTrained(none, "f", atLimit), {
    message:
      "f: each row's first 5 tokens contain nothing to train on; shorten the prompts (the model reads at most 5 tokens), or train on all tokens with trainOn all",
  });
});

test("tokenising can be aborted, with the signal's reason", async (t) => {
  const reason = new Error("enough");
  const data = await rowsOf({ text: "a" });
  await t.throwsAsync(tokenizeRows(data, letters(), { ...options, signal: AbortSignal.abort(reason) }), {
    is: reason,
  });
});

test("a store returns the added examples, across segments", (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.array(fc.nat(60_000), { maxLength: 9 }), fc.nat(9)), { maxLength: 20 }),
      fc.boolean(),
      (rows, narrow) => {
        const store = new ExampleStore("tokens", narrow ? 1 << 16 : undefined);
        // A long first row, so that some rows span two segments.
        store.add(new Int32Array((1 << 20) - 30), 0);
        const plain: Example[] = rows.map(([ids, ignored]) => {
          const given = Int32Array.from(ids);
          store.add(given, ignored);
          const labels = given.slice().fill(-100, 0, ignored);
          return { ids: given, labels, trained: labels.subarray(1).filter((id) => id !== -100).length };
        });
        const places = Uint32Array.from(rows, (_, i) => i + 1);
        const picked = store.pick(places);
        t.deepEqual([...picked], plain);
        t.is(computeFingerprint(picked), computeFingerprint(plain));
        t.is(countTrained(picked), countTrained(plain));
      },
    ),
    { numRuns: 10 },
  );
});

function classes(labels: number[]): ExampleStore {
  const store = new ExampleStore("classes");
  for (const [i, label] of labels.entries()) store.add(Int32Array.of(i), label);
  return store;
}

const places = (rows: Iterable<Example>): number[] => Array.from(rows, ({ ids }) => ids[0] as number);

test("evalSplit draws by the seed, at least one row, and leaves at least one", (t) => {
  const rows = classes(Array.from({ length: 100 }, () => 0));
  const { train, held } = splitHeldOut(rows, 0.2, 7);
  t.is(held.length, 20);
  t.deepEqual(places(splitHeldOut(rows, 0.2, 7).held), places(held));
  t.notDeepEqual(places(splitHeldOut(rows, 0.2, 8).held), places(held));
  t.notDeepEqual(
    places(held),
    Array.from({ length: 20 }, (_, i) => 80 + i),
  );
  const both = [...places(train), ...places(held)].sort((a, b) => a - b);
  t.deepEqual(
    both,
    Array.from({ length: 100 }, (_, i) => i),
  );
  for (const part of [train, held])
    t.deepEqual(
      places(part),
      places(part).sort((a, b) => a - b),
    );
  t.is(splitHeldOut(rows, 0.0001, 0).held.length, 1);
  t.is(splitHeldOut(rows, 0.9999, 0).train.length, 1);
  for (const fraction of [0, 1, NaN, -1])
    t.throws(() => splitHeldOut(rows, fraction, 0), { message: /evalSplit/ });
  t.throws(() => splitHeldOut(classes([0]), 0.5, 0), { message: /1 row, too few/ });
  t.throws(() => splitHeldOut(classes([0, 1, 2]), 0.5, 0), {
    code: "ERR_OPTION",
    message: /evalSplit: each of the 3 classes has one row, which is needed for training; .* with evalData/,
  });
});

test("every row is held out equally often", (t) => {
  const counts = Array.from({ length: 10 }, () => 0);
  const seeds = 4000;
  const rows = classes(counts.map(() => 0));
  for (let seed = 0; seed < seeds; seed++) {
    for (const place of places(splitHeldOut(rows, 0.3, seed).held)) counts[place]!++;
  }
  // Chi-square with 9 degrees of freedom: 33.7 is exceeded once in ten thousand.
  const expected = 0.3 * seeds;
  const square = counts.reduce((sum, n) => sum + (n - expected) ** 2 / (expected * 0.7), 0);
  t.true(square < 33.7, `${square}: ${counts.join()}`);
});

test("evalSplit holds out the same share of each class, and never a class's last row", (t) => {
  const labels = Array.from({ length: 200 }, (_, i) => (i < 150 ? 0 : i < 199 ? 1 : 2));
  const { train, held } = splitHeldOut(classes(labels), 0.1, 3);
  const count = (rows: Iterable<Example>, label: number): number =>
    [...rows].filter(({ labels: [own] }) => own === label).length;
  t.deepEqual(
    [0, 1, 2].map((label) => count(held, label)),
    [15, 5, 0],
  );
  t.is(count(train, 2), 1);
});

test("evalSplit holds out a row of each rare class, within the share, for any seed", (t) => {
  const heldOf = (sizes: number[], fraction: number, seed: number): number[] => {
    const labels = sizes.flatMap((size, label) => Array.from({ length: size }, () => label));
    const { train, held } = splitHeldOut(classes(labels), fraction, seed);
    t.is(held.length + train.length, labels.length);
    return sizes.map((_, label) => [...held].filter(({ labels: [own] }) => own === label).length);
  };
  for (let seed = 0; seed < 5; seed++) {
    t.deepEqual(heldOf([980, 12, 6, 2], 0.05, seed), [47, 1, 1, 1]);
    t.deepEqual(heldOf([36, 4], 0.05, seed), [1, 1]);
    t.deepEqual(
      heldOf([500, 300, 100, 97, 2, 1], 0.01, seed),
      [4, 3, 1, 1, 1, 0],
      "one row is never held out",
    );
    t.deepEqual(heldOf([96, 2, 2], 0.02, seed), [2, 0, 0], "the share has too few rows for each");
    t.deepEqual(heldOf([50, 50], 0.2, seed), [10, 10]);
  }
});

test("ten thousand classes are split in less than two seconds", (t) => {
  const store = new ExampleStore("classes");
  // Rare classes take more than their share, at the expense of others.
  for (let row = 0; row < 120_000; row++)
    store.add(Int32Array.of(row), row < 20_000 ? row % 10_000 : row % 100);
  const began = performance.now();
  const { held } = splitHeldOut(store, 0.1, 1);
  t.true(performance.now() - began < 2000);
  t.is(held.length, 12_000);
  t.is(new Set(Array.from({ length: held.length }, (_, row) => held.classAt(row))).size, 10_000);
});
