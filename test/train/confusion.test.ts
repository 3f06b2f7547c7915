import test from "ava";
import { Confusion } from "../../src/train/confusion.js";

function confusion(table: number[][]): Confusion {
  const made = new Confusion(table.map((_, i) => `class ${i}`));
  for (const [truth, row] of table.entries()) {
    for (const [predicted, count] of row.entries())
      for (let i = 0; i < count; i++) made.add(truth, predicted);
  }
  return made;
}

test("rows are the true classes and columns the predicted ones", (t) => {
  const { scores } = confusion([
    [5, 1],
    [2, 4],
  ]);
  t.deepEqual(scores.confusion, [
    [5, 1],
    [2, 4],
  ]);
  t.deepEqual(scores.labels, ["class 0", "class 1"]);
  t.is(scores.accuracy, 9 / 12);
  t.deepEqual(scores.withoutRows, []);
});

test("classes without rows are named", (t) => {
  const { scores } = confusion([
    [2, 0, 1],
    [0, 0, 0],
    [0, 1, 3],
  ]);
  t.deepEqual(scores.withoutRows, ["class 1"]);
});

// Equal to sklearn.metrics.f1_score(truth, predicted, average="macro"), computed by hand.
const cases: [name: string, table: number[][], macroF1: number][] = [
  [
    "two classes",
    [
      [5, 1],
      [2, 4],
    ],
    (10 / 13 + 8 / 11) / 2,
  ],
  [
    "a class that is never predicted counts as 0",
    [
      [6, 0],
      [3, 0],
    ],
    (12 / 15 + 0) / 2,
  ],
  [
    "a class that is only predicted counts as 0",
    [
      [2, 0, 1],
      [0, 3, 0],
      [0, 0, 0],
    ],
    (4 / 5 + 1 + 0) / 3,
  ],
  [
    "a class that is nowhere doesn't count",
    [
      [2, 1, 0],
      [0, 3, 0],
      [0, 0, 0],
    ],
    (4 / 5 + 6 / 7) / 2,
  ],
];

for (const [name, table, expected] of cases) {
  test(`macro-F1: ${name}`, (t) => {
    t.true(Math.abs(confusion(table).macroF1 - expected) < 1e-12, String(confusion(table).macroF1));
  });
}
