/** Conversations on the command line: as data, in requests for answers, and on a terminal. */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import type { TrainEvent } from "../../src/train/events.js";
import { temporary, tinyModel } from "../hashed.js";
import { CLI } from "../programs.js";
import { type Ended, ONE_LINE, runHere as run } from "./lowrank.js";

/** Its tokens are letters. */
const TEMPLATE =
  "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

function chatModel(template: string | null = TEMPLATE): string {
  const folder = tinyModel({ maxPositions: 256 });
  if (template !== null) writeFileSync(join(folder, "chat_template.jinja"), template);
  return folder;
}

function file(name: string, content: string): string {
  const path = join(temporary(), name);
  writeFileSync(path, content);
  return path;
}

const jsonl = (...rows: object[]): string =>
  file("rows.jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));
const turns = (...said: string[]) =>
  said.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }));

const model = chatModel();
const conversation = turns("hello", "ahoy", "who is it");

test.serial(
  "generate --messages: a file, an object and inline JSON give the same as the rendered text",
  async (t) => {
    const common = ["generate", "--model", model, "--device", "cpu", "--max-tokens", "8", "--json"];
    const text = await run(...common, "--prompt", "u:hello\na:ahoy\nu:who is it\na:");
    t.is(text.status, 0, text.stderr);
    for (const given of [
      file("m.json", JSON.stringify(conversation)),
      file("o.json", JSON.stringify({ messages: conversation })),
      file("marked.json", `\uFEFF${JSON.stringify(conversation)}`),
      JSON.stringify(conversation),
    ])
      t.is((await run(...common, "--messages", given)).stdout, text.stdout);
    const elsewhere = ["generate", "--model", chatModel("{{ nothing + 1 }}"), ...common.slice(3)];
    const own = ["--chat-template", file("t.jinja", TEMPLATE), "--messages", JSON.stringify(conversation)];
    t.is((await run(...elsewhere, ...own)).stdout, text.stdout);
    const other = await run(...common, "--messages", JSON.stringify(turns("hello")));
    t.not(other.stdout, text.stdout);
  },
);

test.serial("invalid messages, and a template that is missing or throws, are one line", async (t) => {
  const bare = chatModel(null);
  const cases: [string[], RegExp][] = [
    [["--model", model, "--messages", "absent.json"], /absent\.json: no such file/],
    [["--model", model, "--messages", "[{"], /--messages: not JSON; expected/],
    [["--model", model, "--messages", "[]"], /--messages: messages is empty/],
    [
      ["--model", model, "--messages", '[{"role":"bot","content":"a"}]'],
      /messages\[0\]\.role is "bot"; roles are/,
    ],
    [
      ["--model", bare, "--messages", JSON.stringify(conversation)],
      /has no chat template.*--chat-template FILE/,
    ],
    [
      ["--model", bare, "--chat-template", "none.jinja", "--messages", JSON.stringify(conversation)],
      /none\.jinja: no such chat template/,
    ],
    [
      [
        "--model",
        bare,
        "--chat-template",
        file("t.jinja", "{{ raise_exception('not so') }}"),
        "--messages",
        JSON.stringify(conversation),
      ],
      /t\.jinja: the chat template refuses the messages: not so/,
    ],
  ];
  for (const [argv, message] of cases) {
    const { status, stdout, stderr } = await run("generate", "--device", "cpu", ...argv);
    t.is(status, 1, argv.join(" "));
    t.is(stdout, "");
    t.regex(stderr, message);
    t.regex(stderr, ONE_LINE);
  }
});

test.serial(
  "generate --json --logprobs: log-probabilities of each token, and of other candidates",
  async (t) => {
    const argv = [
      "generate",
      "--device",
      "cpu",
      "--model",
      model,
      "--max-tokens",
      "4",
      "--prompt",
      "hello",
      "--json",
    ];
    interface Said {
      text: string;
      tokens: number[];
      logprobs?: {
        token: number;
        logprob: number;
        bytes: number[];
        top?: { token: number; text: string; bytes: number[]; logprob: number }[];
      }[];
    }
    const said = async (...more: string[]): Promise<Said> =>
      JSON.parse((await run(...argv, ...more)).stdout) as Said;
    const [plain, own, three] = [await said(), await said("--logprobs"), await said("--logprobs", "3")];
    t.false("logprobs" in plain);
    t.deepEqual(
      own.logprobs?.map(({ token }) => token),
      plain.tokens,
    );
    t.true(own.logprobs?.every((one) => one.logprob < 0 && !("top" in one)));
    t.deepEqual(
      three.logprobs?.map(({ top }) => top?.length),
      plain.tokens.map(() => 3),
    );
    // The most likely token was chosen.
    for (const { token, logprob, bytes, top } of three.logprobs ?? [])
      t.like(top?.[0], { token, logprob, bytes });
    t.is(Buffer.from(three.logprobs?.flatMap(({ bytes }) => bytes) ?? []).toString(), three.text);
  },
);

test.serial("generate: penalties and biases decide the tokens", async (t) => {
  const biases = ["--logit-bias", "5=100", "--logit-bias", "6=90"];
  const argv = ["generate", "--device", "cpu", "--model", model, "--max-tokens", "4", "--prompt", "hello"];
  const chosen = async (...more: string[]): Promise<number[]> => {
    const { stdout } = await run(...argv, "--json", ...biases, ...more);
    return (JSON.parse(stdout) as { tokens: number[] }).tokens;
  };
  t.deepEqual(await chosen(), [5, 5, 5, 5]);
  t.deepEqual(await chosen("--frequency-penalty", "60"), [5, 6, 5, 6]);
  t.deepEqual(await chosen("--presence-penalty", "60"), [5, 6, 5, 5]);
  t.deepEqual(await chosen("--presence-penalty", "-60"), [5, 5, 5, 5]);
  const beyond = await run(...argv, "--logit-bias", "999999=1");
  t.is(beyond.status, 1);
  t.regex(beyond.stderr, /--logit-bias has the token 999999; this model's tokens are 0 to \d+\n$/);
});

/** Runs `lowrank chat` with these lines. */
function chat(input: string, ...argv: string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, "chat", "--device", "cpu", ...argv]);
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
    child.stdin.end(input);
  });
}

test.serial(
  "chat: each line is answered with the earlier turns as context, until the input ends",
  async (t) => {
    const common = ["--model", model, "--max-tokens", "6"];
    const { status, stdout, stderr } = await chat("hello\n\nwho\n", ...common, "--system", "be kind");
    t.is(status, 0, stderr);
    t.is(stderr, "");
    const answer = async (...messages: object[]): Promise<string> => {
      const argv = [
        "generate",
        "--device",
        "cpu",
        ...common,
        "--json",
        "--messages",
        JSON.stringify(messages),
      ];
      return (JSON.parse((await run(...argv)).stdout) as { text: string }).text;
    };
    const system = { role: "system", content: "be kind" };
    const first = await answer(system, ...turns("hello"));
    const second = await answer(system, ...turns("hello", first, "who"));
    t.is(stdout, `${first}\n${second}\n`);
  },
);

test.serial("chat: /help, /reset and /exit are commands, and an unknown one is reported", async (t) => {
  const common = ["--model", model, "--max-tokens", "6"];
  const lines = [
    "hello",
    "/help",
    "/rset",
    "/reset",
    "who",
    "//not a command",
    "/tmp/a/b is a path",
    "/exit",
    "never answered",
  ];
  const { status, stdout, stderr } = await chat(lines.join("\n"), ...common);
  t.is(status, 0, stderr);
  const answer = async (...messages: object[]): Promise<string> => {
    const argv = ["generate", "--device", "cpu", ...common, "--json", "--messages", JSON.stringify(messages)];
    return (JSON.parse((await run(...argv)).stdout) as { text: string }).text;
  };
  const first = await answer(...turns("hello"));
  // Turns before /reset are forgotten.
  const who = await answer(...turns("who"));
  const slashed = await answer(...turns("who", who, "/not a command"));
  const path = await answer(...turns("who", who, "/not a command", slashed, "/tmp/a/b is a path"));
  t.is(stdout, `${[first, who, slashed, path].join("\n")}\n`);
  t.regex(stderr, /\/help +show these commands\n.*\/reset .*\n.*\/exit /);
  t.regex(
    stderr,
    /^lowrank: unknown command "\/rset" \(did you mean \/reset\?\); use \/help, \/reset, \/exit/m,
  );
  t.regex(stderr, /^lowrank: new conversation$/m);
});

test.serial(
  "chat: the oldest turns are dropped with a notice when no more fit; no template is one line",
  async (t) => {
    const lines = ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("\n");
    const { status, stderr } = await chat(lines, "--model", model, "--max-tokens", "2");
    t.is(status, 0, stderr);
    t.regex(stderr, /^lowrank: the first 2 messages no longer fit and are omitted\n/);
    const bare = await chat("hello\n", "--model", chatModel(null));
    t.is(bare.status, 1);
    t.is(bare.stdout, "");
    t.regex(bare.stderr, /has no chat template/);
    t.regex(bare.stderr, ONE_LINE);
  },
);

const rows = [
  { messages: turns("hello", "ahoy", "and you", "well") },
  { messages: turns("no answer").slice(0, 1) },
  { messages: turns("hi", "x".repeat(80)) },
  { messages: turns("hi", "yes", "more", "y".repeat(80)) },
  {
    conversations: [
      { from: "human", value: "a" },
      { from: "gpt", value: "b" },
    ],
  },
  { instruction: "say", input: "c", output: "d" },
];

test.serial(
  "inspect: rows with their trained tokens, counts and lengths, and skipped rows with the reason",
  async (t) => {
    const data = jsonl(...rows);
    const argv = ["inspect", data, "--model", model, "--max-length", "60"];
    const { status, stdout, stderr } = await run(...argv, "--json");
    t.is(status, 0, stderr);
    const found = JSON.parse(stdout) as { first: unknown[]; notices: string[]; lengths: unknown[] };
    t.like(found, { kind: "data", file: data, rows: 6, kept: 4, cut: 1, dropped: 2, maxLength: 60 });
    t.like(found, { trainedTokens: "ahoy\nwell\n".length + "yes\n".length + "b\n".length + "d\n".length });
    t.deepEqual(found.first[0], [
      { text: "u:hello\na:", trained: false },
      { text: "ahoy\n", trained: true },
      { text: "u:and you\na:", trained: false },
      { text: "well\n", trained: true },
    ]);
    t.deepEqual(found.first[1], [
      { text: "u:hi\na:", trained: false },
      { text: "yes\n", trained: true },
    ]);
    t.deepEqual(found.lengths, [
      { from: 8, to: 15, rows: 3 },
      { from: 16, to: 31, rows: 0 },
      { from: 32, to: 63, rows: 1 },
    ]);
    const told = found.notices.join("\n");
    t.regex(told, /1 of 6 rows \(first line 5\) read in ShareGPT's format/);
    t.regex(told, /1 of 6 rows \(first line 6\) read in Alpaca's format/);
    t.regex(told, /1 of 6 rows \(first line 2\) skipped: there is no assistant turn/);
    t.regex(told, /1 of 6 rows \(first line 3\) skipped: the first assistant turn ends after 60 tokens/);
    t.regex(
      told,
      /1 of 6 rows \(first line 4\) truncated after the last assistant turn that fits in 60 tokens/,
    );
    t.is(found.notices.length, 5);
    t.like(found, { packing: { sequences: 2, rowsPerSequence: 2, mostRows: 3 } });

    const plain = await run(...argv, "--rows", "1");
    t.true(plain.stdout.includes("u:hello\na:⟦ahoy\n⟧u:and you\na:⟦well\n⟧"), plain.stdout);
    t.regex(plain.stdout, /6 rows, 4 trained on, 1 cut, 2 left out/);
    t.regex(plain.stdout, / {2}8–15 tokens {2}█{40} 3\n/);
    t.regex(
      plain.stdout,
      /with --packing 2 sequences of 60 tokens, 2\.0 rows in each and at most 3: [\d.]+% is padding, and [\d.]+% where/,
    );
  },
);

test.serial(
  "finetune: trains on the assistant's turns, reports skipped rows, and refuses if no row is left",
  async (t) => {
    const common = ["finetune", "--model", model, "--device", "cpu", "--rank", "2", "--steps", "2", "--json"];
    const output = join(temporary(), "out");
    const done = await run(...common, "--data", jsonl(...rows), "--max-length", "60", "--output", output);
    t.is(done.status, 0, done.stderr);
    const events = done.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as TrainEvent);
    const start = events.find((one) => one.type === "start");
    t.like(start, { examples: 4, tokens: "ahoy\nwell\nyes\nb\nd\n".length });
    const warnings = events.flatMap((one) => (one.type === "warning" ? [one.message] : []));
    t.is(warnings.filter((one) => /skipped|truncated after|read in/.test(one)).length, 5);
    t.true(readFileSync(join(output, "adapter_config.json"), "utf8").includes("CAUSAL_LM"));

    const none = jsonl({ messages: turns("a").slice(0, 1) });
    const refused = await run(...common, "--data", none, "--output", join(temporary(), "out"));
    t.is(refused.status, 1);
    t.regex(refused.stderr, /nothing to train on/);
    t.regex(refused.stderr, ONE_LINE);

    const missing = [...common, "--chat-template", "none.jinja", "--data", none];
    const absent = await run(...missing, "--output", join(temporary(), "out"));
    t.regex(absent.stderr, /none\.jinja: no such chat template/);
  },
);
