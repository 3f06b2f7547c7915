/** The recommendations of messages work: each is followed here, or by the test that `followed.ts` names. */
import { spawn } from "node:child_process";
import { cpSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { lora, nn } from "../../src/index.js";
import { type Ended, runHere as run } from "../cli/lowrank.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { CLI } from "../programs.js";

const model = tinyModel();
const data = tinyData();
const room = temporary();
let made = 0;
const fresh = (name: string): string => join(room, `${made++}-${name}`);
const file = (name: string, content: string): string => {
  const path = fresh(name);
  writeFileSync(path, content);
  return path;
};
const rows = (...all: object[]): string =>
  file("rows.jsonl", all.map((row) => `${JSON.stringify(row)}\n`).join(""));
const TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}";
const SHORT = ["--steps", "1", "--grad-accum", "1", "--device", "cpu"];
const finetune = (...argv: string[]): Promise<Ended> =>
  run("finetune", ...SHORT, "--output", fresh("out"), ...argv);
const started = (...argv: string[]): Promise<Ended> => finetune("--model", model, "--data", data, ...argv);

/** Runs a command with text on its standard input. */
function piped(input: string, ...argv: string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, ...argv]);
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
    child.stdin.on("error", () => {});
    child.stdin.end(input);
  });
}

test.serial(
  "--resume and --yes: one of them, and a folder that contains a run: --resume, --yes and --output",
  async (t) => {
    const output = fresh("out");
    const argv = ["finetune", "--model", model, "--data", data, ...SHORT];
    t.is((await run(...argv, "--save-every", "1", "--output", output)).status, 0);
    const both = await run("finetune", "--resume", output, "--yes");
    t.regex(both.stderr, /--resume continues the run that --yes would replace; give one of them/);
    const again = await run(...argv, "--output", output);
    t.regex(
      again.stderr,
      /continue it with --resume, replace it with --yes, or choose another folder with --output/,
    );
    t.is((await run("finetune", "--resume", output, "--steps", "2")).status, 0);
    t.is((await run(...argv, "--output", output, "--yes")).status, 0);
    t.is((await run(...argv, "--output", fresh("other"))).status, 0);
  },
);

test.serial("standard input: --data-format, --eval-split, and the same again", async (t) => {
  const text = readFileSync(data, "utf8");
  const format = data.endsWith(".jsonl") ? "jsonl" : "txt";
  const output = fresh("out");
  const common = ["finetune", "--model", model, "--data", "-", ...SHORT];
  const nameless = await piped(text, ...common, "--output", output);
  t.regex(nameless.stderr, /give --data-format/);
  const twice = await piped(text, ...common, "--data-format", format, "--eval-data", "-", "--output", output);
  t.regex(twice.stderr, /cannot both be standard input; give --eval-split/);
  const split = await piped(
    text,
    ...common,
    "--data-format",
    format,
    "--eval-split",
    "0.5",
    "--save-every",
    "1",
    "--output",
    output,
  );
  t.is(split.status, 0, split.stderr);
  const onward = ["finetune", "--resume", output, "--steps", "2"];
  const without = await run(...onward);
  t.regex(without.stderr, /give the same again with --data -/);
  const resumed = await piped(text, ...onward, "--data", "-");
  t.is(resumed.status, 0, resumed.stderr);
});

test.serial("options that need others, or one of two", async (t) => {
  const cases: [string[], RegExp, string[][]][] = [
    [["--model", model], /--model needs --data FILE/, [["--model", model, "--data", data]]],
    [
      ["--model", model, "--data", data, "--eval-every", "1"],
      /--eval-every needs --eval-data or --eval-split/,
      [
        ["--eval-data", data],
        ["--eval-split", "0.5"],
      ].map((more) => ["--model", model, "--data", data, "--eval-every", "1", ...more]),
    ],
    [
      ["--model", model, "--data", data, "--eval-split", "0.5", "--patience", "1"],
      /--patience counts evaluations: it needs --eval-every/,
      [["--model", model, "--data", data, "--eval-split", "0.5", "--patience", "1", "--eval-every", "1"]],
    ],
    [
      ["--model", model, "--data", data, "--eval-split", "0.5", "--eval-data", data],
      /give one of --eval-data and --eval-split, not both/,
      [["--model", model, "--data", data, "--eval-data", data]],
    ],
  ];
  for (const [argv, message, instead] of cases) {
    const refused = await finetune(...argv);
    t.is(refused.status, 2);
    t.regex(refused.stderr, message);
    for (const one of instead) {
      const { status, stderr } = await finetune(...one);
      t.is(status, 0, stderr);
    }
  }
});

test.serial("requirements of generate: --prompt or --messages, and --messages for a template", async (t) => {
  const template = file("chat.jinja", TEMPLATE);
  const common = ["generate", "--model", model, "--device", "cpu", "--max-tokens", "1"];
  t.regex((await run(...common)).stderr, /generate needs --prompt TEXT or --messages FILE/);
  t.is((await run(...common, "--prompt", "a")).status, 0);
  const unused = await run(...common, "--prompt", "a", "--chat-template", template);
  t.regex(unused.stderr, /give --messages to use it/);
  const conversation = file("m.json", JSON.stringify([{ role: "user", content: "hi" }]));
  const used = await run(...common, "--messages", conversation, "--chat-template", template);
  t.is(used.status, 0);
  t.is(used.stderr, "");
});

test.serial(
  "a model without a chat template: --chat-template, for generate, chat, finetune and inspect",
  async (t) => {
    const template = ["--chat-template", file("chat.jinja", TEMPLATE)];
    const chats = rows({
      messages: [
        { role: "user", content: "hi" },
        { role: "assistant", content: "yes" },
      ],
    });
    const conversation = file("m.json", JSON.stringify([{ role: "user", content: "hi" }]));
    const commands: [string[], (...argv: string[]) => Promise<Ended>][] = [
      [["generate", "--model", model, "--messages", conversation, "--max-tokens", "1"], run],
      [["inspect", chats, "--model", model], run],
      [["evaluate", "--data", chats, "--model", model], run],
      [["chat", "--model", model, "--max-tokens", "1"], (...argv) => piped("hi\n", ...argv)],
      [["--model", model, "--data", chats], finetune],
    ];
    for (const [argv, start] of commands) {
      const without = await start(...argv);
      t.is(without.status, 1, argv.join(" "));
      t.regex(without.stderr, /give one with --chat-template FILE/);
      const given = await start(...argv, ...template);
      t.is(given.status, 0, given.stderr);
    }
  },
);

test.serial("an adapter with an unknown or missing model: --model", async (t) => {
  const adapter = fresh("adapter");
  t.is((await run("finetune", "--model", model, "--data", data, ...SHORT, "--output", adapter)).status, 0);
  const config = join(adapter, "adapter_config.json");
  const text = JSON.parse(readFileSync(config, "utf8")) as Record<string, unknown>;
  for (const base of [null, "/nowhere/at/all"]) {
    writeFileSync(config, JSON.stringify({ ...text, base_model_name_or_path: base }));
    const commands = [
      ["evaluate", "--data", data, "--adapter", adapter, "--device", "cpu"],
      ["generate", "--prompt", "a", "--max-tokens", "1", "--adapter", adapter, "--device", "cpu"],
      ["merge", "--adapter", adapter, "--output", fresh("merged")],
    ];
    for (const argv of commands) {
      const without = await run(...argv);
      t.not(without.status, 0, argv.join(" "));
      t.regex(without.stderr, /give --model|give the model with --model/);
      const given = await run(...argv, "--model", model);
      t.is(given.status, 0, given.stderr);
    }
    const exported = ["export", "--adapter", adapter, "--format", "gguf", "--output", fresh("a.gguf")];
    t.regex((await run(...exported)).stderr, /give the model with --model|give --model/);
    t.is((await run(...exported, "--model", model)).status, 0);
  }
});

test.serial("packing: a run confirms the estimate of inspect for --packing", async (t) => {
  const said = await run("inspect", data, "--model", model);
  const [, sequences] = /with --packing (\d+) sequence/.exec(said.stdout) ?? [];
  t.truthy(sequences, said.stdout);
  const { status, stdout } = await started("--packing");
  t.is(status, 0);
  t.regex(stdout, new RegExp(`in ${sequences} sequences?`));
});

test.serial(
  "rows with nothing to train on, and truncated rows: --max-length, and --train-on all",
  async (t) => {
    const long = rows({ prompt: "a long prompt, ".repeat(3), completion: "b" });
    const cut = await finetune("--model", model, "--data", long, "--max-length", "8");
    t.is(cut.status, 1);
    t.regex(
      cut.stderr,
      /shorten the prompts, or raise --max-length up to the model's 64, or train on all tokens with --train-on all/,
    );
    const all = await finetune("--model", model, "--data", long, "--max-length", "8", "--train-on", "all");
    t.is(all.status, 0, all.stderr);
    t.regex(all.stderr, /a larger --max-length, up to the model's 64, keeps more of them/);
    const raised = await finetune("--model", model, "--data", long, "--max-length", "64");
    t.is(raised.status, 0, raised.stderr);
    t.is(raised.stderr, "");
    // At the model's own limit a larger --max-length would change nothing.
    const text = "a long text, ".repeat(8);
    const atLimit = await finetune("--model", model, "--data", rows({ text }), "--max-length", "64");
    t.regex(atLimit.stderr, /the model reads at most 64 tokens, so split or shorten such rows$/m);
    t.notRegex(atLimit.stderr, /--max-length/);
    const halves = [{ text: text.slice(0, 52) }, { text: text.slice(52) }];
    const split = await finetune("--model", model, "--data", rows(...halves), "--max-length", "64");
    t.is(split.stderr, "");
    const prompt = "a prompt, ".repeat(8);
    const asked = ["--model", model, "--max-length", "64", "--data"];
    const whole = await finetune(...asked, rows({ prompt, completion: "b" }));
    t.regex(whole.stderr, /shorten the prompts \(the model reads at most 64 tokens\), or train on all/);
    const shorter = await finetune(...asked, rows({ prompt: prompt.slice(0, 40), completion: "b" }));
    t.is(shorter.stderr, "");
    // A command without --train-on all does not recommend it.
    const judged = await run(
      "evaluate",
      "--model",
      model,
      "--data",
      long,
      "--max-length",
      "8",
      "--device",
      "cpu",
    );
    t.regex(judged.stderr, /raise --max-length up to the model's 64$/m);
    t.is(
      (await run("evaluate", "--model", model, "--data", long, "--max-length", "64", "--device", "cpu"))
        .status,
      0,
    );
  },
);

test.serial(
  "conversations that are too long: --max-length; tools that a template ignores: --chat-template",
  async (t) => {
    const template = ["--chat-template", file("chat.jinja", TEMPLATE)];
    const [hi, yes] = [
      { role: "user", content: "hi" },
      { role: "assistant", content: "yes" },
    ];
    const long = rows(
      { messages: [{ role: "user", content: "x".repeat(30) }, yes] },
      { messages: [hi, yes] },
    );
    const cut = await finetune("--model", model, "--data", long, ...template, "--max-length", "20");
    t.regex(cut.stderr, /a larger --max-length, up to the model's 64, keeps them/);
    t.is((await finetune("--model", model, "--data", long, ...template, "--max-length", "60")).stderr, "");
    const call = {
      role: "assistant",
      content: "",
      tool_calls: [{ type: "function", function: { name: "f", arguments: {} } }],
    };
    const tools = [{ type: "function", function: { name: "f", parameters: {} } }];
    const calls = rows({ messages: [hi, call], tools }, { messages: [hi, yes], tools });
    const ignored = await finetune("--model", model, "--data", calls, ...template);
    t.is(ignored.stderr.match(/use a template for tools with --chat-template/g)?.length, 2, ignored.stderr);
    const whole = `{% for tool in tools or [] %}{{ tool.function.name }}\n{% endfor %}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function.name }}{% endfor %}\n{% endfor %}`;
    const heard = await finetune(
      "--model",
      model,
      "--data",
      calls,
      "--chat-template",
      file("tools.jinja", whole),
    );
    t.is(heard.status, 0, heard.stderr);
    t.notRegex(heard.stderr, /template for tools/);
  },
);

test.serial("rows of prompt and completion with a chat template: --prompt-format", async (t) => {
  const template = ["--chat-template", file("chat.jinja", TEMPLATE)];
  const pairs = rows({ prompt: "hi", completion: "yes" });
  const notice = /--prompt-format raw trains the plain texts/;
  const common = ["--model", model, "--data", pairs];
  const written = await finetune(...common, ...template);
  t.is(written.status, 0, written.stderr);
  t.regex(written.stderr, notice);
  const raw = await finetune(...common, ...template, "--prompt-format", "raw");
  t.is(raw.status, 0, raw.stderr);
  t.notRegex(raw.stderr, notice);
  const shown = ["inspect", pairs, "--model", model, ...template];
  t.regex((await run(...shown)).stdout, /u:hi\n.*yes/);
  t.regex((await run(...shown)).stdout, notice);
  const plain = await run(...shown, "--prompt-format", "raw");
  t.regex(plain.stdout, /hi⟦yes/);
  t.notRegex(plain.stdout, notice);
  const judged = ["evaluate", ...common, "--device", "cpu", "--json", ...template];
  const byTemplate = await run(...judged);
  t.regex(byTemplate.stderr, notice);
  const joined = await run(...judged, "--prompt-format", "raw");
  t.notRegex(joined.stderr, notice);
  t.not(joined.stdout, byTemplate.stdout);

  const [user, assistant] = [
    { role: "user", content: "hi" },
    { role: "assistant", content: "yes" },
  ];
  const messages = [
    "--data",
    rows({ prompt: [user], completion: [assistant] }),
    "--model",
    model,
    ...template,
  ];
  const refused = await finetune(...messages, "--prompt-format", "raw");
  t.regex(refused.stderr, /"prompt" is an array of messages, .*; use --prompt-format chat$/m);
  t.is((await finetune(...messages, "--prompt-format", "chat")).status, 0);
  const mixed = rows({ prompt: [user], completion: "yes" });
  const both = await finetune("--data", mixed, "--model", model, ...template);
  t.regex(both.stderr, /make both strings, or both arrays of messages$/m);
  const estimated = await run("estimate", "--data", pairs, "--model", model, "--device", "cpu", ...template);
  t.is(estimated.status, 0, estimated.stderr);
});

test.serial("more steps, and data that has moved", async (t) => {
  const output = fresh("out");
  const mine = fresh("mine.jsonl");
  cpSync(data, mine);
  t.is(
    (
      await run(
        "finetune",
        "--model",
        model,
        "--data",
        mine,
        "--output",
        output,
        "--save-every",
        "1",
        ...SHORT.slice(2),
        "--steps",
        "3",
      )
    ).status,
    0,
  );
  const fewer = await run("finetune", "--resume", output, "--steps", "1");
  t.regex(fewer.stderr, /give more steps, or resume from an earlier checkpoint/);
  t.is(
    (
      await run(
        "finetune",
        "--resume",
        join(output, "checkpoint-1"),
        "--steps",
        "2",
        "--output",
        fresh("branch"),
      )
    ).status,
    0,
  );
  const moved = fresh("moved.jsonl");
  renameSync(mine, moved);
  const gone = await run("finetune", "--resume", output, "--steps", "4");
  t.regex(gone.stderr, /moved or is gone; pass its new path with --data/);
  const found = await run("finetune", "--resume", output, "--steps", "4", "--data", moved);
  t.is(found.status, 0, found.stderr);
});

test.serial("a rank above the width: a lower one", async (t) => {
  const high = await started("--rank", "64");
  const [, most] = /--rank is above the width.*where (\d+) is the most/.exec(high.stderr) ?? [];
  t.truthy(most, high.stderr);
  t.is((await started("--rank", most as string)).stderr, "");
  // PiSSA refuses a rank above the width.
  const start = await started("--rank", "64", "--init", "pissa");
  t.regex(start.stderr, /take a lower rank$/m);
  t.is((await started("--rank", most as string, "--init", "pissa")).status, 0);
});

test.serial("a model family that PEFT's table lacks: all-linear, or layers by name", async (t) => {
  const make = (): nn.Sequential => new nn.Sequential(new nn.Linear(4, 4), new nn.Linear(4, 4));
  await t.throwsAsync(lora.inject(make(), { targetModules: "peft" }), {
    message: /name layers, or all-linear/,
  });
  t.is((await lora.inject(make(), { targetModules: "all-linear" })).adapted.length, 2);
  t.is((await lora.inject(make(), { targetModules: ["1"] })).adapted.length, 1);
});

/** Refusals of `finetune`, and its recommendations. */
const REFUSED: [what: string, refused: string[], message: RegExp, instead: string[][]][] = [
  ["loraAlpha", ["--init", "olora", "--dora"], /choose one of them/, [["--init", "olora"], ["--dora"]]],
  [
    "an odd rank",
    ["--init", "orthogonal", "--rank", "3"],
    /take an even rank/,
    [["--init", "orthogonal", "--rank", "4"]],
  ],
  [
    "DoRA over blocks",
    ["--quantize", "nf4", "--dora"],
    /load the model without --quantize, or leave --dora out/,
    [["--dora"], ["--quantize", "nf4"]],
  ],
  [
    "a start over blocks",
    ["--quantize", "nf4", "--init", "pissa"],
    /load the model without --quantize, or start otherwise/,
    [
      ["--init", "pissa"],
      ["--quantize", "nf4"],
    ],
  ],
];
for (const [what, refused, message, instead] of REFUSED) {
  test.serial(`refused by finetune, with what to do: ${what}`, async (t) => {
    const no = await started(...refused);
    t.not(no.status, 0);
    t.regex(no.stderr, message);
    for (const argv of instead) {
      const yes = await started(...argv);
      t.is(yes.status, 0, yes.stderr);
    }
  });
}
