/** Ambiguous data: it is read as intended, reported, or refused. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import type { Row } from "../../src/data/given.js";
import { describeLabels } from "../../src/data/labels.js";
import { readData } from "../../src/data/read.js";
import { LowrankError } from "../../src/errors.js";
import { finetune, inspect } from "../../src/index.js";
import { temporary, tinyModel } from "../hashed.js";
import { tinyEncoder } from "../tiny-encoder.js";
import { collect } from "../train/quick.js";
import { contentOf, labelled, rowsOf, write } from "./sources.js";

const WITH_INPUT =
  "Below is an instruction that describes a task, paired with an input that provides further context. " +
  "Write a response that appropriately completes the request.\n\n### Instruction:\n";
const WITHOUT =
  "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n";

/** Returns a row in the format of tatsu-lab/alpaca. */
function alpaca(instruction: string, input: string, output: string): Record<string, string> {
  const begin =
    input === "" ? `${WITHOUT}${instruction}` : `${WITH_INPUT}${instruction}\n\n### Input:\n${input}`;
  return { instruction, input, output, text: `${begin}\n\n### Response:\n${output}` };
}

const ALPACA = [
  alpaca("Give three tips for staying healthy.", "", "1. Eat a balanced diet.\n2. Exercise.\n3. Sleep."),
  alpaca("Identify the odd one out.", "Twitter, Instagram, Telegram", "Telegram"),
  // Some rows of the data set have no answer.
  alpaca("Generate a picture of a cat.", "", ""),
];

async function problemOf(row: object): Promise<string> {
  const error = await rowsOf(row).then(
    () => new Error("nothing was thrown"),
    (cause: Error) => cause,
  );
  if (!(error instanceof LowrankError)) throw error;
  return error.message.replace(/^\S+:1: /, "");
}

test("a text or prompt that repeats the other fields is ignored", async (t) => {
  const turns = [
    { role: "user", content: "What swims?" },
    { role: "assistant", content: "A whale." },
  ];
  const conversations = [
    { from: "human", value: "What swims?" },
    { from: "gpt", value: "A whale." },
  ];
  const cases: [row: Record<string, unknown>, copy: string][] = [
    ...ALPACA.map((row): [Record<string, string>, string] => [row, "text"]),
    [{ prompt: "What swims?", prompt_id: "6f3a", messages: turns }, "prompt"],
    [{ prompt: "What swims?", messages: [{ role: "system", content: "Be brief." }, ...turns] }, "prompt"],
    [{ conversations, text: "USER: What swims? ASSISTANT: A whale.</s>" }, "text"],
    [{ messages: turns, text: "<|user|>\nWhat swims?<|end|>\n<|assistant|>\nA whale.<|end|>\n" }, "text"],
    [{ prompt: "2 + 2 =", completion: " 4", text: "2 + 2 = 4" }, "text"],
    [{ instruction: "Add.", input: "2, 2", output: "4", prompt: "### Add.\n2, 2" }, "prompt"],
  ];
  for (const [row, copy] of cases) {
    const plain = Object.fromEntries(Object.entries(row).filter(([name]) => name !== copy));
    const [expected] = await contentOf(await rowsOf(plain));
    t.deepEqual(await contentOf(await rowsOf(row)), [{ ...(expected as object), copy } as never]);
  }
});

test("a text that does not repeat the other fields is refused", async (t) => {
  const [row] = ALPACA as [Record<string, string>];
  const { text = "", output } = row;
  for (const other of [`${text} And more.`, text.replace("healthy", "rich"), "something else", 3, output])
    t.regex(
      await problemOf({ ...row, text: other }),
      /^the row has both "text" and "instruction"; remove one; /,
    );
  const messages = [
    { role: "user", content: "a" },
    { role: "assistant", content: "b" },
  ];
  t.regex(await problemOf({ messages, prompt: "c" }), /^the row has both "messages" and "prompt"/);
  t.regex(
    await problemOf({ messages, prompt: "a", completion: "b" }),
    /^the row has both "messages" and "prompt"/,
  );
});

test("a null field of another format is ignored, as in Parquet", async (t) => {
  const content = await contentOf(
    await rowsOf({ text: null, prompt: "a", completion: "b" }, { text: "c", prompt: null }),
  );
  t.like(content[0], { kind: "completion", prompt: "a" });
  t.like(content[1], { kind: "text", text: "c" });
  t.regex(await problemOf({ text: null }), /^"text" must be a string, got null/);
});

test("a misspelled field of a message or of a row is refused with the correct name", async (t) => {
  const user = { role: "user", content: "a" };
  const assistant = { role: "assistant", content: "b" };
  const human = { from: "human", value: "a" };
  const cases: [row: object, near: string, meant: string][] = [
    [{ messages: [user, { ...assistant, wieght: 0 }] }, "wieght", "weight"],
    [{ messages: [user, { ...assistant, Weight: 0 }] }, "Weight", "weight"],
    [{ messages: [user, { role: "assistant", contnet: "b" }] }, "contnet", "content"],
    [{ messages: [user, { ...assistant, toolCalls: [] }] }, "toolCalls", "tool_calls"],
    [{ messages: [user, { ...assistant, tool_call: [] }] }, "tool_call", "tool_calls"],
    [{ messages: [{ rol: "user", content: "a" }] }, "rol", "role"],
    [{ conversations: [human, { from: "gpt", valeu: "b" }] }, "valeu", "value"],
    [{ conversations: [human, { from: "gpt", value: "b", weigth: 0 }] }, "weigth", "weight"],
    [{ messages: [user, assistant], tool: [] }, "tool", "tools"],
    [{ text: "a", lable: "x" }, "lable", "label"],
    [{ instruction: "a", imput: "b", output: "c" }, "imput", "input"],
    [{ conversations: [human, { from: "gpt", value: "b" }], sytem: "c" }, "sytem", "system"],
  ];
  for (const [row, near, meant] of cases) {
    const problem = await problemOf(row);
    t.true(problem.includes(`"${near}" (did you mean ${meant}?)`), `${near}: ${problem}`);
  }
});

test("other fields of messages and rows may have any name", async (t) => {
  const more = {
    id: 1,
    name: "n",
    timestamp: 2,
    model: "m",
    context: "c",
    date: "d",
    tags: ["x"],
    reasoning: "r",
  };
  const user = { role: "user", content: "a", ...more };
  const rows = [
    { ...more, messages: [user, { role: "assistant", content: "b", ...more }] },
    {
      ...more,
      conversations: [
        { from: "human", value: "a", ...more },
        { from: "gpt", value: "b", ...more },
      ],
    },
    { ...more, text: "a", labels: ["x", "y"], source: "s", url: "u" },
    { ...more, prompt: "a", completion: "b", category: "c" },
    { ...more, instruction: "a", output: "b" },
  ];
  t.is((await contentOf(await rowsOf(...rows))).length, rows.length);
});

test("indented JSON is identified as such", async (t) => {
  const pretty = JSON.stringify({ text: "a", id: 1 }, null, 2);
  for (const name of ["a.jsonl", "a.ndjson", "a.json"]) {
    const error = await t.throwsAsync(readData(write(name, `${pretty}\n`)), {
      code: "ERR_DATA_ROW",
    } as never);
    t.regex(
      error?.message ?? "",
      /: not JSON: \{; the object continues on the next line, .*one row a line.*array of rows/,
    );
  }
});

test("rows within an object, and an empty Parquet file, are identified as such", async (t) => {
  const wrapped = write("a.json", JSON.stringify({ version: 1, data: [{ text: "a" }] }));
  await t.throwsAsync(readData(wrapped), {
    message:
      /a\.json: row 1: the row's "data" is an array of objects; if those are the rows, give the array alone$/,
  });
  await t.throwsAsync(readData(write("a.parquet", "")), { message: /a\.parquet: .*: the file is empty$/ });
});

test("labels that are likely to be one class are reported", async (t) => {
  const rows = Array.from({ length: 100 }, (_, i): [string, string] => [
    `t${i}`,
    i % 2 ? "positive" : "negative",
  ]);
  const data = await labelled(...rows, ["a", "postive"], ["b", "negative "], ["c", "Negative"]);
  const notices = describeLabels(data).map((one) => one.replace(/^\S+?:/, ""));
  t.deepEqual(notices, [
    '102: the label "negative " (1 row) is a separate class from "negative" (50 rows); if they are the same, give both one name',
    '103: the label "Negative" (1 row) is a separate class from "negative" (50 rows); if they are the same, give both one name',
    '101: the label "postive" (1 row) is a separate class from "positive" (50 rows); if they are the same, give both one name',
  ]);
  const numbered = rows.map(([text], i): [string, string] => [text, `class_${i % 3}`]);
  t.deepEqual(describeLabels(await labelled(...numbered, ["a", "class_3"], ["b", "class_30"])), []);
  // Two classes of similar sizes may have similar names.
  t.deepEqual(describeLabels(await labelled(["a", "sense"], ["b", "tense"], ["c", "sense"])), []);
});

test("the labels of ten thousand classes are compared quickly", async (t) => {
  const rows = Array.from({ length: 10_000 }, (_, i): [string, string] => [`t${i}`, `${i * 7919}-name`]);
  const data = await labelled(...rows, ["a", "0-NAME"]);
  const began = performance.now();
  t.is(describeLabels(data).length, 1);
  t.true(performance.now() - began < 2000);
});

const TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}";

/** Returns the reports of `inspect` and of the start of a run about data. */
async function reported(model: string, data: Row[]): Promise<{ inspected: string[]; warned: string[] }> {
  const found = await inspect(write("a.jsonl", data.map((row) => JSON.stringify(row)).join("\n")), { model });
  const options = { model, device: "cpu", steps: 1, maxLength: 200, lora: { r: 2 } } as const;
  const events = await collect(finetune({ ...options, data, output: join(temporary(), "out") }));
  return {
    inspected: found.kind === "data" ? found.notices : [],
    warned: events.flatMap((event) => (event.type === "warning" ? [event.message] : [])),
  };
}

test("empty answers and ignored copies are reported by inspect and at the start of a run", async (t) => {
  const model = tinyModel({ maxPositions: 512 });
  writeFileSync(join(model, "chat_template.jinja"), TEMPLATE);
  const chats = await reported(model, ALPACA as never);
  const plain = await reported(model, [
    { prompt: "a", completion: "b" },
    { prompt: "a", completion: " " },
    { prompt: "a", completion: "" },
  ]);
  for (const place of ["inspected", "warned"] as const) {
    const all = chats[place].join("\n");
    t.regex(
      all,
      /3 of 3 rows \(first \S+ ?[01]\]?\) have a "text" that repeats the other fields; it is ignored/,
    );
    t.regex(
      all,
      /1 of 3 rows \(first \S+ ?[23]\]?\) have an empty text, completion or answer: only its end token/,
    );
    t.regex(
      plain[place].join("\n"),
      /2 of 3 rows \(first \S+ ?[12]\]?\) have an empty text, completion or answer/,
    );
  }
});

test("similar labels are reported by inspect and at the start of a run", async (t) => {
  const rows = Array.from({ length: 40 }, (_, i) => ({ text: `t${i}`, label: i % 2 ? "x" : "y" }));
  const found = await reported(await tinyEncoder(), [...rows, { text: "t", label: "x " }]);
  for (const place of ["inspected", "warned"] as const)
    t.regex(found[place].join("\n"), /the label "x " \(1 row\) is a separate class from "x" \(20 rows\)/);
});
