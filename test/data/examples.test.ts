import test from "ava";
import {
  blocksOfText,
  evalSplit,
  type Encoder,
  exampleOfRow,
  examplesOf,
  trainedExamples,
} from "../../src/data/examples.js";
import { LowrankError } from "../../src/errors.js";

const BOS = 1;
const EOS = 2;

/** A letter a token; puts BOS in front, and EOS behind where told. "$" is EOS as text. */
function letters({ addsEos = false } = {}): Encoder {
  return {
    encode: (text, { addSpecialTokens = true } = {}) => {
      const ids = [...text].map((letter) => (letter === "$" ? EOS : letter.charCodeAt(0)));
      return Int32Array.from(addSpecialTokens ? [BOS, ...ids, ...(addsEos ? [EOS] : [])] : ids);
    },
  };
}

const options = { maxLength: 100, eosTokenIds: [EOS, 9] };
const code = (text: string): number[] => [...text].map((letter) => letter.charCodeAt(0));

test("a text row ends with the end token and trains on all", (t) => {
  const one = exampleOfRow({ kind: "text", line: 1, text: "ab" }, letters(), options);
  t.deepEqual([...one.ids], [BOS, ...code("ab"), EOS]);
  t.deepEqual([...one.labels], [...one.ids]);
  t.is(one.trained, 3);
});

test("the end token is not doubled", (t) => {
  const own = exampleOfRow({ kind: "text", line: 1, text: "ab" }, letters({ addsEos: true }), options);
  t.deepEqual([...own.ids], [BOS, ...code("ab"), EOS]);
  const written = exampleOfRow({ kind: "text", line: 1, text: "ab$" }, letters(), options);
  t.deepEqual([...written.ids], [BOS, ...code("ab"), EOS]);
  const row = { kind: "completion", line: 1, prompt: "a", completion: "b$" } as const;
  t.deepEqual([...exampleOfRow(row, letters(), options).ids], [BOS, ...code("ab"), EOS]);
});

test("prompt and completion: apart, nothing between, the prompt is not trained on", (t) => {
  const row = { kind: "completion", line: 1, prompt: "ab", completion: "cd" } as const;
  for (const encoder of [letters(), letters({ addsEos: true })]) {
    const one = exampleOfRow(row, encoder, options);
    t.deepEqual([...one.ids], [BOS, ...code("abcd"), EOS]);
    t.deepEqual([...one.labels], [-100, -100, -100, ...code("cd"), EOS]);
    t.is(one.trained, 3);
  }
  const all = exampleOfRow(row, letters(), { ...options, trainOn: "all" });
  t.deepEqual([...all.labels], [...all.ids]);
  t.is(all.trained, 5);
});

test("an end token that the prompt itself holds stays", (t) => {
  const row = { kind: "completion", line: 1, prompt: "a$", completion: "b" } as const;
  t.deepEqual([...exampleOfRow(row, letters(), options).ids], [BOS, ...code("a"), EOS, ...code("b"), EOS]);
});

test("an empty completion trains on the end token, also where the prompt ends with it", (t) => {
  const row = { kind: "completion", line: 1, prompt: "a$", completion: "" } as const;
  const one = exampleOfRow(row, letters(), options);
  t.deepEqual([...one.labels], [-100, -100, -100, EOS]);
});

test("what is longer than maxLength is cut off behind it", (t) => {
  const row = { kind: "completion", line: 1, prompt: "abc", completion: "def" } as const;
  const cut = exampleOfRow(row, letters(), { ...options, maxLength: 5 });
  t.deepEqual([...cut.labels], [-100, -100, -100, -100, ...code("d")]);
  t.is(cut.trained, 1);
  const nothing = exampleOfRow(row, letters(), { ...options, maxLength: 4 });
  t.is(nothing.trained, 0);
});

test("a running text becomes blocks without overlap, the last short, with no end token", async (t) => {
  const blocks = blocksOfText("abcdef", letters(), 3);
  t.deepEqual(
    blocks.map((one) => [...one.ids]),
    [[BOS, ...code("ab")], code("cde"), code("f")],
  );
  t.deepEqual(
    blocks.map((one) => one.trained),
    [2, 2, 0],
  );
  const data = { kind: "text", file: "f", text: "abcdef" } as const;
  t.deepEqual(await examplesOf(data, letters(), { ...options, maxLength: 3 }), blocks);
});

test("rows with nothing to train on are left out; an error when all are", (t) => {
  const row = { kind: "completion", line: 1, prompt: "abc", completion: "def" } as const;
  const long = exampleOfRow(row, letters(), { ...options, maxLength: 4 });
  const short = exampleOfRow({ kind: "text", line: 1, text: "a" }, letters(), options);
  t.deepEqual(trainedExamples([long, short], "f", 4), [short]);
  const error = t.throws(() => trainedExamples([long], "f", 4), { instanceOf: LowrankError });
  t.is(error.code, "ERR_NO_TRAINED_TOKENS");
});

test("tokenising can be aborted, with the signal's reason", async (t) => {
  const reason = new Error("enough");
  const data = { kind: "rows", file: "f", rows: [] } as const;
  const signal = AbortSignal.abort(reason);
  await t.throwsAsync(examplesOf({ ...data, rows: [] }, letters(), { ...options, signal }), { is: reason });
});

test("evalSplit takes the last part, at least one row, and leaves at least one", (t) => {
  const rows = Array.from({ length: 10 }, (_, i) => i);
  t.deepEqual(evalSplit(rows, 0.2), { train: rows.slice(0, 8), held: [8, 9] });
  t.deepEqual(evalSplit(rows, 0.01).held, [9]);
  t.deepEqual(evalSplit(rows, 0.99).train, [0]);
  for (const fraction of [0, 1, NaN, -1]) t.throws(() => evalSplit(rows, fraction), { message: /evalSplit/ });
  t.throws(() => evalSplit([1], 0.5), { message: /1 row, too few/ });
});
