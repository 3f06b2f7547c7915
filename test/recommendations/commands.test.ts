/** Recommendations of `predict` and `serve` work. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { lowrank, ONE_LINE, runHere as run } from "../cli/lowrank.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { rowsFile, seaAndLand, tinyEncoder } from "../tiny-encoder.js";

const SHORT = ["--steps", "1", "--grad-accum", "1", "--device", "cpu"];

test.serial(
  "requirements of predict: a classifier, rows or texts, and another file for its output",
  async (t) => {
    const adapter = join(temporary(), "adapter");
    const encoder = await tinyEncoder();
    const rows = rowsFile(seaAndLand(8));
    const trained = await run("finetune", "--model", encoder, "--data", rows, "--output", adapter, ...SHORT);
    t.is(trained.status, 0, trained.stderr);
    const predict = (...argv: string[]): ReturnType<typeof run> => run("predict", "--device", "cpu", ...argv);
    t.regex(
      (await predict("--text", "a")).stderr,
      /predict needs --adapter DIR or --model NAME: a classifier/,
    );
    const needed = /predict needs --data FILE or --text TEXT, and not both/;
    t.regex((await predict("--adapter", adapter)).stderr, needed);
    t.regex((await predict("--adapter", adapter, "--data", rows, "--text", "a")).stderr, needed);
    for (const given of [
      ["--data", rows],
      ["--text", "a"],
    ]) {
      const answered = await predict("--adapter", adapter, ...given);
      t.is(answered.status, 0, answered.stderr);
    }
    // A file without an extension that implies its format.
    for (const [format, text] of [
      ["txt", "a\n"],
      ["jsonl", '{"text": "a"}\n'],
    ] as const) {
      const file = join(temporary(), "rows.dat");
      writeFileSync(file, text);
      const nameless = await predict("--adapter", adapter, "--data", file);
      t.regex(nameless.stderr, /give --data-format txt, jsonl, ndjson, json, csv, parquet$/m);
      const answered = await predict("--adapter", adapter, "--data", file, "--data-format", format);
      t.is(answered.status, 0, answered.stderr);
    }
    // A complete classifier, as --model.
    const whole = join(temporary(), "whole");
    t.is((await run("merge", "--adapter", adapter, "--output", whole)).status, 0);
    const named = await predict("--model", whole, "--text", "a");
    t.is(named.status, 0, named.stderr);
    t.regex(
      (await predict("--model", tinyModel(), "--text", "a")).stderr,
      /name a classifier, or with --adapter one that was trained on rows of text and label/,
    );
    const same = await predict("--adapter", adapter, "--data", rows, "--output", rows, "--yes");
    t.regex(same.stderr, /--output is the file of --data; name another file/);
    const other = await predict(
      "--adapter",
      adapter,
      "--data",
      rows,
      "--output",
      join(temporary(), "o.jsonl"),
    );
    t.is(other.status, 0, other.stderr);
  },
);

test.serial("requirements of serve: another name for the base, and a folder for each adapter", async (t) => {
  const folder = temporary();
  const adapter = join(folder, "ada");
  const model = tinyModel();
  const template = join(folder, "template.jinja");
  writeFileSync(template, "{% for m in messages %}{{ m.content }}{% endfor %}");
  const trained = await run(
    "finetune",
    "--model",
    model,
    "--data",
    tinyData(),
    "--output",
    adapter,
    ...SHORT,
  );
  t.is(trained.status, 0, trained.stderr);
  /** Ends as soon as it listens. */
  const serve = (...argv: string[]): ReturnType<typeof lowrank> =>
    lowrank(
      ["serve", "--port", "0", "--device", "cpu", "--model", model, "--chat-template", template, ...argv],
      { env: { LOWRANK_TOKEN: undefined }, watch: (_, child) => child.kill("SIGINT") },
    );
  const taken = await serve("--name", "ada", "--adapter", adapter);
  t.is(taken.status, 2);
  t.regex(taken.stderr, ONE_LINE);
  t.regex(taken.stderr, /--adapter ada: the base has this name; give the base another with --name$/m);
  const empty = await serve("--adapter", "ada=");
  const [, asked] = /give a folder, as in --adapter (\w+=)DIR$/m.exec(empty.stderr) ?? [];
  t.is(asked, "ada=", empty.stderr);
  const served = await serve("--name", "base", "--adapter", `${asked}${adapter}`);
  t.is(served.status, 130, served.stderr);
});
