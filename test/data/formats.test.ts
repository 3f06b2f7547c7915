/** The same rows from every kind of file and from memory: the same ids, masks and losses. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import type { TrainingData, Row } from "../../src/data/given.js";
import { closeData, readData } from "../../src/data/read.js";
import type { Example } from "../../src/data/store.js";
import { finetune, loadModel } from "../../src/index.js";
import type { PretrainedModel } from "../../src/models/pretrained.js";
import { findClasses, createObjective } from "../../src/train/prepare.js";
import { temporary, tinyModel } from "../hashed.js";
import { tinyEncoder } from "../tiny-encoder.js";
import { collect } from "../train/quick.js";

const golden = (name: string): string => fileURLToPath(new URL(`goldens/${name}`, import.meta.url));

type Fields = Record<string, unknown>;
type Kind = "text" | "completion" | "messages" | "labels";

const rowsOfKind = JSON.parse(readFileSync(golden("rows.json"), "utf8")) as Record<Kind, Fields[]>;

const folder = temporary();
let made = 0;

function file(name: string, content: string): string {
  const path = join(folder, `${made++}-${name}`);
  writeFileSync(path, content);
  return path;
}

const jsonLines = (rows: Fields[]): string => rows.map((row) => JSON.stringify(row)).join("\n");

function csv(rows: Fields[], { delimiter = ",", eol = "\r\n" } = {}): string {
  const columns = Object.keys(rows[0] as Fields);
  const cell = (value: unknown): string =>
    `"${(typeof value === "object" ? JSON.stringify(value) : String(value)).replaceAll('"', '""')}"`;
  const lines = rows.map((row) => columns.map((name) => cell(row[name])).join(delimiter));
  return [columns.join(delimiter), ...lines, ""].join(eol);
}

async function* oneByOne(rows: Fields[]): AsyncGenerator<Row> {
  for (const row of rows) {
    await new Promise((resolve) => setImmediate(resolve));
    yield row as Row;
  }
}

/** Returns every form in which the same rows can be given. */
function ways(rows: Fields[], parquet: string): Record<string, () => TrainingData> {
  return {
    jsonl: () => file("a.jsonl", jsonLines(rows)),
    ndjson: () => file("a.ndjson", `${jsonLines(rows)}\n`),
    json: () => file("a.json", JSON.stringify(rows)),
    "json over many lines": () => file("a.json", `\ufeff${JSON.stringify(rows, null, 2)}\n`),
    "json lines named .json": () => file("a.json", `\n${jsonLines(rows)}\n\n`),
    csv: () => file("a.csv", csv(rows)),
    "csv with semicolons": () => file("a.csv", `\ufeff${csv(rows, { delimiter: ";", eol: "\n" })}`),
    parquet: () => golden(`${parquet}.parquet`),
    "several files": () => [file("a.csv", csv(rows.slice(0, 1))), file("b.jsonl", jsonLines(rows.slice(1)))],
    array: () => rows as Row[],
    "sync iterable": () => new Set(rows as Row[]),
    "async iterable": () => oneByOne(rows),
  };
}

const messages = rowsOfKind.messages as { messages: { role: string; content: string }[] }[];
const shareGpt = messages.map(({ messages: [system, user, assistant] }) => ({
  system: system?.content,
  conversations: [
    { from: "human", value: user?.content },
    { from: "gpt", value: assistant?.content },
  ],
}));
const alpaca = messages.map(({ messages: [system, user, assistant] }) => {
  const [instruction, input = ""] = (user?.content ?? "").split("\n\n");
  return { instruction, input, output: assistant?.content, system: system?.content };
});

const TEMPLATE =
  "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

function chatModel(): string {
  const model = tinyModel({ maxPositions: 256 });
  writeFileSync(join(model, "chat_template.jinja"), TEMPLATE);
  return model;
}

interface Seen {
  rows: { ids: number[]; labels: number[] }[];
  losses: number[];
}

/** Returns the ids and masks that a model trains on. */
async function tokenised(path: string, given: () => TrainingData): Promise<Seen["rows"]> {
  const data = await readData(given());
  const labels = findClasses({ train: data, held: undefined }, path);
  const task = labels && ({ task: "sequence-classification", numLabels: labels.length } as const);
  const model = await loadModel(path, { device: "meta:cpu", ...task });
  try {
    const objective = createObjective(model as PretrainedModel, { labels, maxLength: 200 });
    const store = await objective.createExamples(data, undefined);
    return Array.from(store, ({ ids, labels }: Example) => ({ ids: [...ids], labels: [...labels] }));
  } finally {
    model.dispose();
    closeData(data);
  }
}

/** Returns the losses of a run of two steps. */
async function trained(model: string, data: TrainingData): Promise<number[]> {
  const options = { model, device: "cpu", steps: 2, maxLength: 200, gradientAccumulation: 2, lora: { r: 2 } };
  const events = await collect(finetune({ ...options, data, output: join(temporary(), "out") }));
  return events.flatMap((event) => (event.type === "step" ? [event.loss] : []));
}

async function seen(model: string, give: () => TrainingData): Promise<Seen> {
  return { rows: await tokenised(model, give), losses: await trained(model, give()) };
}

const kinds: [
  name: Kind,
  model: () => string | Promise<string>,
  ways: () => Record<string, () => TrainingData>,
][] = [
  ["text", () => tinyModel({ maxPositions: 256 }), () => ways(rowsOfKind.text, "text")],
  ["completion", () => tinyModel({ maxPositions: 256 }), () => ways(rowsOfKind.completion, "completion")],
  [
    "messages",
    chatModel,
    () => ({
      ...ways(rowsOfKind.messages, "messages"),
      ...Object.fromEntries(
        Object.entries(ways(shareGpt, "sharegpt")).map(([way, give]) => [`ShareGPT: ${way}`, give]),
      ),
      ...Object.fromEntries(
        Object.entries(ways(alpaca, "alpaca")).map(([way, give]) => [`Alpaca: ${way}`, give]),
      ),
    }),
  ],
  ["labels", tinyEncoder, () => ways(rowsOfKind.labels, "labels")],
];

for (const [kind, model, given] of kinds)
  test.serial(`${kind}: the same ids, masks and losses from every source of the rows`, async (t) => {
    const path = await model();
    const { jsonl, ...others } = given();
    const expected = await seen(path, jsonl as () => TrainingData);
    t.is(expected.rows.length, rowsOfKind[kind].length);
    t.is(expected.losses.length, 2);
    t.true(expected.losses.every((loss) => Number.isFinite(loss) && loss > 0));
    for (const [way, give] of Object.entries(others)) t.deepEqual(await seen(path, give), expected, way);
  });
