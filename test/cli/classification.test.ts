import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { formatConfusion } from "../../src/cli/confusion-table.js";
import { temporary } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";
import { lowrank } from "./lowrank.js";

test("the confusion table: a line for each class, a column for each predicted class", (t) => {
  const labels = ["ham", "a longer name"];
  const table = formatConfusion({
    labels,
    confusion: [
      [1234, 5],
      [60, 7],
    ],
  });
  t.deepEqual(table, [
    String.raw`row \ taken for    ham  a longer name`,
    "ham              1,234              5",
    "a longer name       60              7",
  ]);
});

test.serial("fine-tune on rows with labels, evaluate, merge", async (t) => {
  const folder = temporary();
  const [model, output, merged] = [await tinyEncoder(), join(folder, "out"), join(folder, "merged")];
  const rows = seaAndLand(60);
  const [data, held] = [rowsFile(rows.slice(0, 48)), rowsFile(rows.slice(48))];
  const common = ["--model", model, "--data", data, "--device", "cpu", "--output", output];
  const steps = ["--steps", "18", "--lr", "0.01", "--batch-size", "4", "--grad-accum", "2", "--rank", "4"];
  const trained = await lowrank(["finetune", ...common, ...steps, "--eval-data", held]);
  t.is(trained.status, 0, trained.stderr);
  t.regex(trained.stdout, /data +48 rows, to tell 2 classes apart: land, sea; 12 rows held out/);
  t.regex(trained.stdout, /step 18: held-out loss 0\.\d+, accuracy 100\.00%, macro-F1 1\.0000/);

  const evaluated = ["evaluate", "--data", held, "--device", "cpu", "--batch-size", "5"];
  const text = await lowrank([...evaluated, "--adapter", output]);
  t.is(text.status, 0, text.stderr);
  t.regex(text.stderr, /^lowrank: warning: .*rows\.jsonl: 3 of 12 rows are longer than 32 tokens .*\n$/);
  const [first, ...table] = text.stdout.trimEnd().split("\n");
  t.regex(first as string, /^accuracy 100\.00%, macro-F1 1\.0000, loss 0\.\d{4}, over 12 rows$/);
  t.deepEqual(table, [
    "",
    String.raw`row \ taken for  land  sea`,
    "land                8    0",
    "sea                 0    4",
  ]);
  const json = await lowrank([...evaluated, "--adapter", output, "--json"]);
  const figures = JSON.parse(json.stdout) as Record<string, unknown>;
  t.like(figures, { accuracy: 1, macroF1: 1, rows: 12, labels: ["land", "sea"] });
  t.deepEqual(figures["confusion"], [
    [8, 0],
    [0, 4],
  ]);

  const exported = join(folder, "exported");
  const exporting = ["export", "--adapter", output, "--format", "peft", "--output", exported];
  t.is((await lowrank(exporting)).status, 0);
  t.deepEqual(readFileSync(join(exported, "labels.json")), readFileSync(join(output, "labels.json")));
  t.is((await lowrank(["merge", "--adapter", output, "--output", merged])).status, 0);
  t.like(JSON.parse(readFileSync(join(merged, "config.json"), "utf8")), {
    architectures: ["BertForSequenceClassification"],
    id2label: { 0: "land", 1: "sea" },
  });
  const whole = await lowrank([...evaluated, "--model", merged, "--json"]);
  const { loss, ...same } = JSON.parse(whole.stdout) as Record<string, unknown>;
  const { loss: apart, ...before } = figures;
  t.deepEqual(same, before);
  // Merging rounds once more.
  t.true(Math.abs((loss as number) - (apart as number)) < 1e-5, `${String(loss)}, ${String(apart)}`);
});

test.serial("data and commands that do not suit a classifier are one line", async (t) => {
  const [model, output] = [await tinyEncoder(), join(temporary(), "out")];
  const data = rowsFile(seaAndLand(8));
  const stranger = rowsFile([{ text: "a", label: "sky" }]);
  const plain = rowsFile([{ text: "a" }]);
  const trained = await lowrank(
    ["finetune", "--model", model, "--data", data, "--device", "cpu", "--output", output].concat(
      "--steps",
      "1",
    ),
  );
  t.is(trained.status, 0, trained.stderr);
  const cases: [string[], RegExp][] = [
    [["evaluate", "--adapter", output, "--data", stranger], /:1: the label "sky" is not one of the classes/],
    [
      ["evaluate", "--adapter", output, "--data", plain],
      /:1: there is no "label", and the model is a classifier/,
    ],
    [["evaluate", "--model", model, "--data", data], /is neither a language model nor a classifier/],
    [["evaluate", "--data", data], /:1: the row has a "label", but the model is a language model/],
    [["generate", "--adapter", output, "--prompt", "a"], /this model is not a language model/],
  ];
  for (const [argv, message] of cases) {
    const { status, stdout, stderr } = await lowrank([...argv, "--device", "cpu"]);
    t.is(status, 1, argv.join(" "));
    t.is(stdout, "");
    const last = stderr.trimEnd().split("\n").at(-1) as string;
    t.regex(last, message);
    t.regex(last, /^lowrank: /);
  }
});
