/** Control characters in data, labels and generated text do not reach a terminal. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import fc from "fast-check";

import {
  escapeControls,
  escapeAll,
  escapeLines,
  escapeGenerated,
  formatJsonLine,
} from "../../src/cli/terminal/escaped.js";
import { createHumanRenderer } from "../../src/cli/finetune/render.js";
import { formatInspected } from "../../src/cli/inspected.js";
import { inspect, type InspectedData } from "../../src/index.js";
import { formatConfusion } from "../../src/cli/confusion-table.js";
import { temporary, tinyModel } from "../hashed.js";
import { tinyEncoder } from "../tiny-encoder.js";
import { runHere as run } from "./lowrank.js";

const EVIL = "a\u001b[2Jb\u009b31mc\u0007\u007f";
const SHOWN = String.raw`a\x1b[2Jb\x9b31mc\x07\x7f`;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

test("control characters are escaped, and nothing else is changed", (t) => {
  t.is(escapeControls(`${EVIL}\n\té€`), `${SHOWN}${String.raw`\x0a\x09`}é€`);
  t.is(escapeLines(`${EVIL}\n\té\r`), `${SHOWN}\n\té${String.raw`\x0d`}`);
  t.deepEqual(escapeAll({ [EVIL]: [EVIL, 3, null, { a: EVIL }] }), {
    [SHOWN]: [SHOWN, 3, null, { a: SHOWN }],
  });
  // Random text rarely has a control character beyond ASCII.
  t.notRegex(formatJsonLine({ [EVIL]: EVIL }), CONTROL);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      t.notRegex(escapeLines(text), CONTROL);
      t.notRegex(formatJsonLine({ text }), CONTROL);
      t.deepEqual(JSON.parse(formatJsonLine({ text })), { text });
    }),
  );
});

test("generated text is escaped on a terminal, and unchanged in a file", (t) => {
  t.is(escapeGenerated(`${EVIL}\n`, { isTTY: true }), `${SHOWN}\n`);
  t.is(escapeGenerated(`${EVIL}\n`, { isTTY: false }), `${EVIL}\n`);
});

test("a run's lines escape text from files", (t) => {
  let text = "";
  const show = createHumanRenderer({ write: (more: string) => ((text += more), true) } as never);
  show({ type: "checkpoint", step: 1, path: `/tmp/${EVIL}` });
  t.is(text, `step 1: saved /tmp/${SHOWN}\n`);
});

test.serial("inspect, evaluate and runs print no control character of their files", async (t) => {
  const folder = temporary();
  const model = tinyModel();
  const rows = join(folder, `rows-${EVIL}.jsonl`);
  writeFileSync(rows, '{"text":"a row"}\n');
  const data = await run("inspect", rows, "--model", model);
  t.is(data.status, 0, data.stderr);
  t.true(data.stdout.includes(`rows-${SHOWN}.jsonl: 1 row`), data.stdout);
  t.notRegex(data.stdout, CONTROL);
  const found = (await inspect(rows, { model })) as InspectedData;
  const lines = formatInspected({ ...found, first: [[{ text: `${EVIL} and\nmore`, trained: true }]] }).join(
    "\n",
  );
  t.true(lines.includes(`${SHOWN} and\nmore`), lines);
  t.notRegex(lines, CONTROL);

  const encoder = await tinyEncoder();
  const labelled = join(folder, "labels.jsonl");
  const texts = ["one", "two", "three", "four"];
  writeFileSync(
    labelled,
    texts.map((text, i) => JSON.stringify({ text, label: i % 2 === 0 ? EVIL : "plain" })).join("\n"),
  );
  const output = join(folder, "out");
  const trained = await run(
    "finetune",
    "--model",
    encoder,
    "--data",
    labelled,
    "--steps",
    "1",
    "--device",
    "cpu",
    "--output",
    output,
  );
  t.is(trained.status, 0, trained.stderr);
  t.notRegex(trained.stdout, CONTROL);
  const judged = await run("evaluate", "--adapter", output, "--data", labelled, "--device", "cpu");
  t.is(judged.status, 0, judged.stderr);
  t.true(judged.stdout.includes(SHOWN), judged.stdout);
  t.notRegex(judged.stdout, CONTROL);
  t.notRegex((await run("runs", folder)).stdout, CONTROL);
  t.notRegex((await run("inspect", output, "--model", encoder)).stdout, CONTROL);
});

test("a table names escaped classes", (t) => {
  const scores = {
    accuracy: 1,
    macroF1: 1,
    labels: [EVIL, "b"],
    confusion: [
      [1, 0],
      [0, 1],
    ],
  };
  for (const line of formatConfusion(escapeAll(scores) as never)) t.notRegex(line, CONTROL);
});
