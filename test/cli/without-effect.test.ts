/** Given options without an effect are reported, and no others. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import type { TrainEvent } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { runHere as run } from "./lowrank.js";

const model = tinyModel();
const data = tinyData();
const folder = temporary();
const template = join(folder, "chat.jinja");
writeFileSync(template, "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}");
const chats = join(folder, "chats.jsonl");
const turns = [
  { role: "user", content: "hello" },
  { role: "assistant", content: "ahoy" },
];
writeFileSync(chats, `${JSON.stringify({ messages: turns })}\n`.repeat(4));
let made = 0;

async function warnings(...argv: string[]): Promise<string[]> {
  const common = ["--model", model, "--steps", "2", "--grad-accum", "1", "--device", "cpu", "--json"];
  const output = ["--output", join(folder, `out-${made++}`)];
  const { stdout, stderr, status } = await run("finetune", ...common, ...output, ...argv);
  if (status !== 0) throw new Error(stderr);
  const events = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as TrainEvent);
  return events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
}

const REPORTED: [argv: string[], warning: RegExp][] = [
  [
    ["--warmup", "2"],
    /^--warmup 2 reaches to the last of 2 steps or beyond: the learning rate never reaches 0\.0002/,
  ],
  [["--warmup", "50"], /^--warmup 50 reaches /],
  [
    ["--rank", "64"],
    /^--rank is above the width of \d+ layers \(.*q_proj.*\): 64 where \d+ is the most that has an effect/,
  ],
  // Between the two sizes of the layers of keys and values, which are 32 and 16.
  [["--rank", "24"], /^--rank is above the width of 4 layers \(k_proj, v_proj\): 24 where 16 is the most /],
  [["--matmul-precision", "f16"], /^--matmul-precision f16 has no effect: only a GPU/],
  [["--language", "de"], /^--language de has no effect: the model does not transcribe speech/],
  [["--chat-template", template], /^--chat-template .*chat\.jinja has no effect: the data holds no messages/],
];

for (const [argv, warning] of REPORTED) {
  test.serial(`reported: ${argv.join(" ")}`, async (t) => {
    const found = await warnings("--data", data, ...argv);
    t.is(found.length, 1, found.join("\n"));
    t.regex(found[0] ?? "", warning);
  });
}

test.serial("options with an effect are not reported", async (t) => {
  t.deepEqual(await warnings("--data", data, "--warmup", "1", "--rank", "4", "--dtype", "bf16"), []);
  t.deepEqual(await warnings("--data", data, "--matmul-precision", "bf16"), []);
  t.deepEqual(await warnings("--data", chats, "--chat-template", template, "--warmup", "0"), []);
});

test.serial("other commands report them, too", async (t) => {
  const generate = ["generate", "--model", model, "--device", "cpu", "--max-tokens", "2", "--prompt", "a"];
  const greedy = await run(...generate, "--top-p", "0.9", "--top-k", "3");
  t.regex(greedy.stderr, /warning: --top-p and --top-k have no effect: at --temperature 0 /);
  t.is((await run(...generate, "--top-p", "0.9", "--temperature", "1")).stderr, "");
  t.regex(
    (await run(...generate, "--chat-template", template)).stderr,
    /--chat-template has no effect: --prompt/,
  );
  const evaluate = await run(
    "evaluate",
    "--model",
    model,
    "--data",
    data,
    "--language",
    "de",
    "--chat-template",
    template,
  );
  t.regex(evaluate.stderr, /warning: --language de has no effect/);
  t.regex(evaluate.stderr, /warning: --chat-template .* has no effect/);
  const rows = await run("inspect", data, "--model", model, "--language", "de", "--chat-template", template);
  t.regex(rows.stdout, /--language de has no effect[^]*--chat-template .* has no effect/);
  const spoken = await run("inspect", chats, "--model", model, "--chat-template", template);
  t.notRegex(spoken.stdout, /no effect/);
  const inspected = await run("inspect", model, "--language", "de");
  t.regex(inspected.stderr, /warning: --language has no effect: it applies to data, and .* is a model/);
});
