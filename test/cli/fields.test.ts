/** Fields of rows on the command line: used, refused by name, or named once as unused. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { temporary, tinyModel } from "../hashed.js";
import { tinyEncoder } from "../tiny-encoder.js";
import { ONE_LINE, runHere, withDefaults } from "./lowrank.js";

const room = temporary();
const plain = tinyModel({ maxPositions: 512 });
const chat = tinyModel({ maxPositions: 512 });
writeFileSync(
  join(chat, "chat_template.jinja"),
  "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}",
);
let made = 0;

type Fields = Record<string, unknown>;

function write(name: string, content: string): string {
  const path = join(room, `${made++}-${name}`);
  writeFileSync(path, content);
  return path;
}

const quote = (value: unknown): string =>
  `"${(typeof value === "string" ? value : JSON.stringify(value)).replaceAll('"', '""')}"`;

/** The same row as JSON lines and as CSV. */
function formats(...rows: Fields[]): string[] {
  const names = Object.keys(rows[0] as Fields);
  const records = rows.map((row) => names.map((name) => quote(row[name])).join(","));
  return [
    write("rows.jsonl", rows.map((row) => `${JSON.stringify(row)}\n`).join("")),
    write("rows.csv", `${names.join(",")}\n${records.join("\n")}\n`),
  ];
}

const finetuning = (data: string, model = chat): string[] =>
  withDefaults(["finetune", "--data", data, "--output", join(temporary(), "out")], {
    model,
    device: "cpu",
    steps: "1",
    rank: "2",
    "max-length": "256",
  });

const turns = [
  { role: "user", content: "What swims?" },
  { role: "assistant", content: "A whale." },
];
const asked = { prompt: "What swims?", completion: " A whale." };

const refused: [row: Fields, message: RegExp, followed: Fields][] = [
  [
    { ...asked, system: "Be brief." },
    /1: the row has a "system" next to "prompt", which does not use it; write the row as \{"messages": \[\{"role": "system", …\}, …\]\}, or remove the field\n$/,
    { messages: [{ role: "system", content: "Be brief." }, ...turns] },
  ],
  [
    { ...asked, label: false },
    /1: the row has a "label" next to "prompt": rated answers \(KTO\) are not supported, .*; keep the rows with label true and remove the field, or train with TRL's KTOTrainer\n$/,
    asked,
  ],
  [
    { instruction: "a", output: "b", kto_tag: true },
    /1: the row has a "kto_tag" next to "instruction": rated answers/,
    { instruction: "a", output: "b" },
  ],
  [
    { prompt: "a", chosen: " b", rejected: " c" },
    /1: the row has "chosen" and "rejected": preference pairs \(DPO\) are not supported; .*rename "chosen" to "completion" and remove "rejected", or train with TRL's DPOTrainer\n$/,
    { prompt: "a", completion: " b" },
  ],
  [
    { chosen: "\n\nHuman: a\n\nAssistant: b", rejected: "\n\nHuman: a\n\nAssistant: c" },
    /rename "chosen" to "text" and remove "rejected"/,
    { text: "\n\nHuman: a\n\nAssistant: b" },
  ],
  [
    { prompt: "What swims?", chosen: turns, rejected: turns },
    /rename "chosen" to "messages" and remove "prompt" and "rejected"/,
    { messages: turns },
  ],
  [
    { instruction: "a", chosen: "b", rejected: "c" },
    /rename "chosen" to "output" and remove "rejected"/,
    { instruction: "a", output: "b" },
  ],
  [
    {
      conversations: [{ from: "human", value: "a" }],
      chosen: { from: "gpt", value: "b" },
      rejected: { from: "gpt", value: "c" },
    },
    /append "chosen" to "conversations" and remove both fields/,
    {
      conversations: [
        { from: "human", value: "a" },
        { from: "gpt", value: "b" },
      ],
    },
  ],
  [
    { messages: turns, label: "animals" },
    /1: the row has a "label" next to "messages", which does not use it; rename or remove it\n$/,
    { messages: turns, topic: "animals" },
  ],
  [
    { messages: [{ role: "system", content: "Be long." }, ...turns], system: "Be brief." },
    /the row has a "system" that differs from its system message; remove one of them\n$/,
    { messages: turns, system: "Be brief." },
  ],
  [
    { text: "a", tools: [{ name: "f" }] },
    /the row has a "tools" next to "text", which does not use it; rename or remove it/,
    { text: "a" },
  ],
  [
    { text: "a", text_pair: "b" },
    /1: the row has a "text_pair" next to "text", and pairs of texts are not trained; write both into "text", or remove the field\n$/,
    { text: "a b" },
  ],
];

test.serial(
  "a field with a meaning that the row does not use is refused, in JSON lines and CSV",
  async (t) => {
    for (const [row, message, followed] of refused) {
      for (const data of formats(row)) {
        const { status, stderr } = await runHere(...finetuning(data));
        // A CSV file has its first row on line 2.
        t.regex(stderr.replace(/rows\.csv:2:/, "rows.csv:1:"), message);
        t.regex(stderr, ONE_LINE);
        t.is(status, 1);
      }
      const [data = ""] = formats(followed);
      const again = await runHere(...finetuning(data));
      t.is(again.status, 0, again.stderr);
    }
  },
);

test.serial("a pair of texts with a label is refused, and one text with both is trained", async (t) => {
  const encoder = await tinyEncoder();
  const rows = [0, 1].map((label) => ({ text: "a", text_pair: "b", label }));
  for (const data of formats(...rows)) {
    const { status, stderr } = await runHere("inspect", data, "--model", encoder);
    t.is(status, 1);
    t.regex(stderr, /:[12]: the row has a "text_pair" next to "text", and pairs of texts are not trained/);
  }
  for (const data of formats(...rows.map(({ label }) => ({ text: "a b", label }))))
    t.is((await runHere("inspect", data, "--model", encoder)).status, 0);
});

test.serial("system, tools and history are trained as turns of the conversation", async (t) => {
  const alpaca = { instruction: "What swims?", output: "A whale.", history: [["What flies?", "A gull."]] };
  for (const data of formats({ ...alpaca, system: "Be brief." })) {
    const { status, stdout, stderr } = await runHere("inspect", data, "--model", chat, "--rows", "1");
    t.is(status, 0, stderr);
    const shown = stdout.replaceAll(/\s+/g, " ");
    for (const part of ["Be brief.", "What flies?", "A gull.", "What swims?", "A whale."])
      t.true(shown.includes(part), `${part} in ${stdout}`);
  }
  const [data = ""] = formats({ messages: turns, system: "Be brief." });
  t.regex((await runHere("inspect", data, "--model", chat)).stdout, /Be brief\./);
  const [wrong = ""] = formats({ ...alpaca, history: ["What flies?"] });
  const { status, stderr } = await runHere("inspect", wrong, "--model", chat);
  t.is(status, 1);
  t.regex(stderr, /:1: "history" must be an array of pairs, \[\["request", "answer"\], …\]\n$/);
});

test.serial("unknown fields are named once, with the number of their rows, in every format", async (t) => {
  const rows: Fields[] = [
    { ...asked, id: "7", source: "a" },
    { ...asked, id: "8", source: "" },
    { ...asked, id: "9", source: "b" },
  ];
  for (const data of formats(...rows)) {
    const { status, stderr } = await runHere(...finetuning(data, plain));
    t.is(status, 0, stderr);
    t.is(stderr.match(/unknown fields/g)?.length, 1);
    t.regex(
      stderr,
      /warning: \S+: unknown fields are not used: "id" in 3 of 3 rows \(first line [12]\), "source" in 2 of 3 rows \(first line [12]\)\n/,
    );
    const inspected = await runHere("inspect", data, "--model", plain, "--json");
    t.is((JSON.parse(inspected.stdout) as { notices: string[] }).notices.length, 1);
  }
  const index = write("index.csv", ",text\n0,the sea\n1,was wide\n");
  const pandas = await runHere(...finetuning(index, plain));
  t.is(pandas.status, 0, pandas.stderr);
  t.regex(pandas.stderr, /"column 1" in 2 of 2 rows/);
  const encoder = await tinyEncoder();
  const labels = write("labels.csv", "id,text,label\n1,a,x\n2,b,y\n");
  const classes = await runHere("inspect", labels, "--model", encoder);
  t.regex(classes.stdout + classes.stderr, /"id" in 2 of 2 rows \(first line 2\)/);
});

test.serial("Parquet: columns that are not read are named", async (t) => {
  const golden = new URL("../data/goldens/sharegpt.parquet", import.meta.url).pathname;
  const { stdout, stderr, status } = await runHere("inspect", golden, "--model", chat);
  t.is(status, 0, stderr);
  t.regex(stdout + stderr, /unknown fields are not used: "id" in \d+ of \d+ rows \(first row 1\)/);
});

test.serial("text, prompts and conversations may be mixed in one file", async (t) => {
  const rows: Fields[] = [{ text: "the sea" }, asked, { messages: turns }];
  const data = write("mixed.jsonl", rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const { stdout, status } = await runHere("inspect", data, "--model", chat, "--json");
  t.is(status, 0);
  t.like(JSON.parse(stdout), { rows: 3, kept: 3 });
});

test.serial("a CSV file without a header, and lines that end in commas, are named as such", async (t) => {
  const row = '{"text":"the sea"}';
  const cases: [
    name: string,
    content: string,
    message: RegExp,
    corrected: [name: string, content: string],
  ][] = [
    [
      "reviews.csv",
      "good movie,1\n",
      /reviews\.csv:1: the first line has no name of a field \(it has "good movie", "1"\); if it is a row, put a header above it, such as text,label or prompt,completion; else rename its columns\n$/,
      ["reviews.csv", "prompt,completion\ngood movie,1\n"],
    ],
    [
      "commas.jsonl",
      `${row},\n${row}\n`,
      /commas\.jsonl:1: not JSON: .*,; the line ends in a comma; remove the commas at the ends of lines, or write an array of rows, \[\{…\}, \{…\}\], as a \.json file\n$/,
      ["commas.json", `[${row},\n${row}]\n`],
    ],
  ];
  for (const [name, content, message, corrected] of cases) {
    const { status, stderr } = await runHere(...finetuning(write(name, content), plain));
    t.is(status, 1);
    t.regex(stderr, ONE_LINE);
    t.regex(stderr, message);
    const again = await runHere(...finetuning(write(...corrected), plain));
    t.is(again.status, 0, again.stderr);
  }
});
