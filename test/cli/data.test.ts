/** Data on the command line: several files, file types, options given twice, and resuming with the same data. */
import zlib from "node:zlib";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { finetune, type FinetuneOptions, type Row } from "../../src/index.js";
import { temporary, tinyModel } from "../hashed.js";
import { tinyEncoder } from "../tiny-encoder.js";
import { adapterBytes } from "../train/quick.js";
import { lowrank, ONE_LINE, runHere, withDefaults } from "./lowrank.js";

const room = temporary();
const model = tinyModel();
let made = 0;

function file(name: string, content: string): string {
  const path = join(room, `${made++}-${name}`);
  writeFileSync(path, content);
  return path;
}

const fresh = (): string => join(temporary(), "out");
const texts = Array.from({ length: 12 }, (_, i) => `the sea ${"was wide and ".repeat(1 + (i % 3))}${i}`);
const lines = (from: number, to?: number): string =>
  texts
    .slice(from, to)
    .map((text) => `${JSON.stringify({ text })}\n`)
    .join("");
const csv = (from: number, to?: number): string => `text\n${texts.slice(from, to).join("\n")}\n`;

const finetuning = (output: string, ...more: string[]): string[] =>
  withDefaults(["finetune", "--output", output, ...more], {
    model,
    device: "cpu",
    steps: "4",
    rank: "2",
    "grad-accum": "2",
  });

test.serial("an option given twice is an error in every command, except for lists", async (t) => {
  const cases: [argv: string[], message: string][] = [
    [["finetune", "--data", "a", "--steps", "1", "--steps", "2"], "--steps is given twice; give it once"],
    [["finetune", "--output", "a", "--output=b"], "--output is given twice; give it once"],
    [["finetune", "--json", "--json"], "--json is given twice; give it once"],
    [["estimate", "--rank", "1", "--rank", "2"], "--rank is given twice; give it once"],
    [
      ["evaluate", "--data", "a", "--device", "cpu", "--device", "cpu"],
      "--device is given twice; give it once",
    ],
    [["generate", "--prompt", "a", "--prompt", "b"], "--prompt is given twice; give it once"],
    [["chat", "--system", "a", "--system", "b"], "--system is given twice; give it once"],
    [["inspect", "a", "--rows", "1", "--rows", "1"], "--rows is given twice; give it once"],
    [
      ["merge", "--adapter", "a", "--adapter", "b", "--output", "c"],
      "--adapter is given twice; give it once",
    ],
    [["export", "--format", "gguf", "--format", "peft"], "--format is given twice; give it once"],
    [["runs", "--json", "--json"], "--json is given twice; give it once"],
    [["devices", "--tune", "--tune"], "--tune is given twice; give it once"],
  ];
  for (const [argv, message] of cases) {
    const { status, stderr } = await runHere(...argv);
    t.deepEqual([status, stderr], [2, `lowrank: ${message}\n`], argv.join(" "));
  }
});

test.serial("several files train as one file of all rows, and a run over them resumes", async (t) => {
  const [whole, a, b, c] = [lines(0), lines(0, 4), csv(4, 8), lines(8)];
  const files = [file("a.jsonl", a), file("b.csv", b), file("c.ndjson", c)] as [string, string, string];
  const [one, all] = [fresh(), fresh()];
  t.is((await runHere(...finetuning(one, "--data", file("all.jsonl", whole)))).status, 0);
  const data = files.flatMap((path) => ["--data", path]);
  const first = await runHere(...finetuning(all, ...data, "--save-every", "2"));
  t.is(first.status, 0, first.stderr);
  t.deepEqual(adapterBytes(all), adapterBytes(one));

  // run.json records the start of the run, with a hash for each file.
  const { options, identities } = JSON.parse(readFileSync(join(all, "run.json"), "utf8")) as {
    options: { data: string[] };
    identities: { sources: { data: string[] } };
  };
  t.deepEqual(options.data, files);
  t.is(new Set(identities.sources.data).size, 3);

  const moved = `${files[1]}.moved.csv`;
  const branch = fresh();
  const resume = ["finetune", "--resume", join(all, "checkpoint-2"), "--output", branch];
  const again = await runHere(...resume);
  t.is(again.status, 0, again.stderr);
  t.deepEqual(adapterBytes(branch), adapterBytes(one));

  renameSync(files[1], moved);
  const elsewhere = ["finetune", "--resume", join(all, "checkpoint-2"), "--output", fresh()];
  const gone = await runHere(...elsewhere);
  t.is(gone.status, 1);
  t.regex(
    gone.stderr,
    /b\.csv: the data of the run has moved or is gone; pass its new path with --data, and the 2 other/,
  );
  const given = [files[0], moved, files[2]].flatMap((path) => ["--data", path]);
  const told = await runHere(...elsewhere, ...given);
  t.is(told.status, 0, told.stderr);

  writeFileSync(moved, csv(3, 7));
  const other = await runHere(
    "finetune",
    "--resume",
    join(all, "checkpoint-2"),
    "--output",
    fresh(),
    ...given,
  );
  t.is(other.status, 1);
  t.regex(other.stderr, /resume: [^ ,]*b\.csv\.moved\.csv: the training data differs/);
  t.regex(other.stderr, ONE_LINE);
});

test.serial("estimate, inspect, evaluate and held-out data take several files", async (t) => {
  const data = ["--data", file("a.jsonl", lines(0, 6)), "--data", file("b.csv", csv(6))];
  const held = [
    "--eval-data",
    file("c.json", `[${lines(0, 2).trim().replaceAll("\n", ",")}]`),
    "--eval-data",
    file("d.csv", csv(2, 5)),
  ];
  const run = await runHere(...finetuning(fresh(), ...data, ...held, "--json"));
  t.is(run.status, 0, run.stderr);
  const start = JSON.parse(run.stdout.split("\n").find((line) => line.includes('"start"')) as string) as {
    examples: number;
    evalExamples: number;
    data: { file: string; rows: number; numbering: string }[];
  };
  t.like(start, { examples: 12, evalExamples: 5 });
  t.deepEqual(
    start.data.map(({ rows, numbering }) => [rows, numbering]),
    [
      [6, "line"],
      [6, "line"],
      [2, "row"],
      [3, "line"],
    ],
  );
  t.is((await runHere("estimate", "--model", model, "--device", "cpu", ...data)).status, 0);
  const files = data.filter((word) => word !== "--data");
  const inspected = await runHere("inspect", ...files, "--model", model, "--json");
  t.like(JSON.parse(inspected.stdout), { rows: 12, kept: 12, file: `${files[0]} and 1 more` });
  const [both, one] = [
    await runHere("evaluate", "--model", model, "--device", "cpu", ...data, "--json"),
    await runHere(
      "evaluate",
      "--model",
      model,
      "--device",
      "cpu",
      "--data",
      file("e.jsonl", lines(0)),
      "--json",
    ),
  ];
  t.is(both.status, 0, both.stderr);
  t.deepEqual(JSON.parse(both.stdout), JSON.parse(one.stdout));
});

test.serial("a YAML file names several files as a list; one format applies to all of them", async (t) => {
  const [a, b] = [file("a.data", lines(0, 6)), file("b.data", lines(6))];
  const config = file("run.yaml", `data:\n  - ${a}\n  - ${b}\ndata-format: ndjson\n`);
  const run = await runHere(...finetuning(fresh(), "--config", config));
  t.is(run.status, 0, run.stderr);
  t.regex(run.stdout, /data +12 rows/);
  const unnamed = await runHere(...finetuning(fresh(), "--data", a));
  t.is(unnamed.status, 1);
  t.regex(
    unnamed.stderr,
    /a\.data: the name ends in \.data, .*; give the data's format, txt, jsonl, ndjson, json, csv or parquet/,
  );
});

test.serial(
  "labels: inspect counts the rows of each class, and a score names the classes without rows",
  async (t) => {
    const encoder = await tinyEncoder();
    const rows = Array.from(
      { length: 24 },
      (_, i) => `sea ${i},${i < 20 ? "calm" : i < 23 ? "wild" : "frozen"}`,
    );
    const data = file("labels.csv", `text,label\n${rows.join("\n")}\n`);
    const shown = await runHere("inspect", data, "--model", encoder, "--rows", "0");
    t.regex(shown.stdout, /^3 classes, rows of each: calm 20, wild 3, frozen 1$/m);
    const json = JSON.parse((await runHere("inspect", data, "--model", encoder, "--json")).stdout) as object;
    t.like(json, {
      classes: [
        { label: "calm", rows: 20 },
        { label: "frozen", rows: 1 },
        { label: "wild", rows: 3 },
      ],
    });
    const output = fresh();
    const run = await runHere(
      ...finetuning(output, "--model", encoder, "--data", data, "--eval-split", "0.1", "--eval-every", "4"),
    );
    t.is(run.status, 0, run.stderr);
    t.regex(run.stdout, /step 4: held-out loss .*, macro-F1 [\d.]+ \(no held-out rows of frozen\)/);
    const calm = file("calm.csv", `text,label\n${rows.slice(0, 3).join("\n")}\n`);
    const evaluated = await runHere("evaluate", "--adapter", output, "--data", calm, "--device", "cpu");
    t.regex(evaluated.stdout, /macro-F1 [\d.]+ \(no rows of frozen, wild\), loss/);
  },
);

test.serial("a run over rows in memory resumes with the same rows, and with no others", async (t) => {
  const rows: Row[] = texts.map((text) => ({ text }));
  async function* oneByOne(): AsyncGenerator<Row> {
    for (const row of rows) yield row;
  }
  const options: FinetuneOptions = {
    model,
    device: "cpu",
    steps: 4,
    gradientAccumulation: 2,
    lora: { r: 2 },
  };
  const [whole, part] = [fresh(), fresh()];
  await finetune({ ...options, data: rows, output: whole }).result;
  await finetune({ ...options, data: oneByOne(), output: part, saveEvery: 2 }).result;
  t.deepEqual(adapterBytes(part), adapterBytes(whole));
  const resume = join(part, "checkpoint-2");
  const [branch, other] = [fresh(), fresh()];
  await finetune({ resume, data: rows, output: branch }).result;
  t.deepEqual(adapterBytes(branch), adapterBytes(whole));
  await t.throwsAsync(finetune({ resume, output: other }).result, {
    code: "ERR_OPTION",
    message: /the run was given rows in memory by data; give the same rows again/,
  });
  const changed = rows.map((row, i) => (i === 5 ? { text: "other" } : row));
  await t.throwsAsync(finetune({ resume, data: changed, output: other }).result, {
    code: "ERR_OPTION",
    message: /resume: data: the training data differs/,
  });
});

/** Returns the option of Node that hides a package. */
function without(name: string): string {
  const hook = `export async function resolve(specifier, context, next) {
    if (specifier !== "${name}") return next(specifier, context);
    throw Object.assign(new Error("none"), { code: "ERR_MODULE_NOT_FOUND" });
  }`;
  const register = `import { register } from "node:module"; register("data:text/javascript," + ${JSON.stringify(encodeURIComponent(hook))});`;
  return `--import=data:text/javascript,${encodeURIComponent(register)}`;
}

test.serial(
  "Parquet without its reader: the error says what to install, and the command that it gives works",
  async (t) => {
    const golden = (name: string): string =>
      fileURLToPath(new URL(`../data/goldens/${name}.parquet`, import.meta.url));
    const cases: [file: string, missing: string, message: RegExp][] = [
      [
        "completion",
        "hyparquet",
        /completion\.parquet: Parquet needs the package hyparquet; run: npm install hyparquet\n$/,
      ],
      [
        "pages-lz4",
        "hyparquet-compressors",
        /Parquet compressed by lz4_raw needs the package hyparquet-compressors; run: npm install hyparquet-compressors\n$/,
      ],
    ];
    const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
      peerDependencies: Record<string, string>;
    };
    for (const [name, missing, message] of cases) {
      const argv = ["inspect", golden(name), "--model", model];
      const { status, stderr } = await lowrank(argv, { env: { NODE_OPTIONS: without(missing) } });
      t.is(status, 1);
      t.regex(stderr, message);
      t.is((await runHere(...argv)).status, 0);
      // The newest version on npm is allowed.
      t.regex(manifest.peerDependencies[missing] as string, /^\^1\./);
    }
    // Snappy and gzip need no other package, and from Node 22.15 on neither does zstd.
    const env = { NODE_OPTIONS: without("hyparquet-compressors") };
    for (const name of ["completion", "gzip", ...("zstdDecompressSync" in zlib ? ["text"] : [])])
      t.is((await lowrank(["inspect", golden(name), "--model", model], { env })).status, 0);
  },
);
