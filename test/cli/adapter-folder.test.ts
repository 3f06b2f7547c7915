/** An adapter's folder is sufficient for commands: it contains the chat template and the path of the base model. */
import { cpSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";

import test from "ava";

import { temporary, tinyModel } from "../hashed.js";
import { ONE_LINE, runHere as run } from "./lowrank.js";

const FILE = "chat_template.jinja";
const OWN =
  "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
const TRAINED =
  "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

const conversation = JSON.stringify([{ role: "user", content: "hello" }]);
const rows = Array.from({ length: 4 }, (_, i) => ({
  messages: [
    { role: "user", content: `hello ${i}` },
    { role: "assistant", content: "ahoy" },
  ],
}));

function file(name: string, content: string): string {
  const path = join(temporary(), name);
  writeFileSync(path, content);
  return path;
}

/** Creates a model with the template OWN, and a command that trains an adapter for it with TRAINED. */
function setUp(): { model: string; output: string; train: string[] } {
  const model = tinyModel({ maxPositions: 256 });
  writeFileSync(join(model, FILE), OWN);
  const output = join(temporary(), "adapter");
  const data = file("rows.jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));
  const train = ["finetune", "--model", model, "--data", data, "--output", output, "--device", "cpu"];
  train.push("--chat-template", file("trained.jinja", TRAINED), "--rank", "2", "--batch-size", "1");
  return { model, output, train: [...train, "--grad-accum", "1", "--lr", "0.05", "--json"] };
}

const json = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;

test.serial("commands render messages with the adapter's chat template by default", async (t) => {
  const { model, output, train } = setUp();
  const trained = await run(...train, "--steps", "4");
  t.is(trained.status, 0, trained.stderr);
  t.is(readFileSync(join(output, FILE), "utf8"), TRAINED);
  const common = ["--device", "cpu", "--max-tokens", "8", "--json"];
  const generate = ["generate", "--adapter", output, ...common];
  const text = await run(...generate, "--prompt", "u:hello\na:");
  const answered = await run(...generate, "--messages", conversation);
  t.is(answered.status, 0, answered.stderr);
  t.is(answered.stdout, text.stdout);
  // A named template overrides the adapter's; without an adapter the model's own is used.
  const named = await run(...generate, "--messages", conversation, "--chat-template", join(model, FILE));
  t.is(named.stdout, (await run(...generate, "--prompt", "[user]hello\n[assistant]")).stdout);
  t.not(named.stdout, answered.stdout);
  const plain = ["generate", "--model", model, ...common];
  t.is(
    (await run(...plain, "--messages", conversation)).stdout,
    (await run(...plain, "--prompt", "[user]hello\n[assistant]")).stdout,
  );
  // The losses are computed with the template of the training.
  const evaluate = ["evaluate", "--adapter", output, "--device", "cpu", "--json"];
  evaluate.push("--data", train[4] as string);
  const loss = await run(...evaluate);
  t.is(loss.status, 0, loss.stderr);
  t.is(loss.stdout, (await run(...evaluate, "--chat-template", file("same.jinja", TRAINED))).stdout);
  t.not(loss.stdout, (await run(...evaluate, "--chat-template", join(model, FILE))).stdout);
  // llama.cpp's adapters cannot store a template.
  const exporting = ["export", "--adapter", output, "--format", "gguf", "--output"];
  const told = await run(...exporting, join(temporary(), "adapter.gguf"));
  t.is(told.status, 0, told.stderr);
  t.true(told.stderr.includes(`--chat-template-file ${join(output, FILE)}`), told.stderr);
  writeFileSync(join(model, FILE), TRAINED);
  t.is((await run(...exporting, join(temporary(), "again.gguf"))).stderr, "");
  writeFileSync(join(model, FILE), OWN);
  const merged = join(temporary(), "merged");
  t.is((await run("merge", "--adapter", output, "--output", merged)).status, 0);
  t.is(readFileSync(join(merged, FILE), "utf8"), TRAINED);
});

test.serial(
  "a resumed run keeps rendering with its first template, even if the template's file has changed",
  async (t) => {
    const losses = (stdout: string): unknown[] =>
      stdout
        .split("\n")
        .filter((line) => line.startsWith('{"type":"step"'))
        .map((line) => (JSON.parse(line) as { loss: number }).loss);
    const { output, train } = setUp();
    const first = await run(...train, "--steps", "4", "--save-every", "2");
    t.is(first.status, 0, first.stderr);
    const all = losses(first.stdout);
    t.is(all.length, 4);
    const template = train[train.indexOf("--chat-template") + 1] as string;
    writeFileSync(template, OWN);
    t.is(readFileSync(join(output, "checkpoint-2", FILE), "utf8"), TRAINED);
    const resume = [
      "finetune",
      "--resume",
      join(output, "checkpoint-2"),
      "--output",
      join(temporary(), "again"),
    ];
    const again = await run(...resume, "--device", "cpu", "--json");
    t.is(again.status, 0, again.stderr);
    t.deepEqual(losses(again.stdout), all.slice(2));
    t.regex(again.stdout + again.stderr, /is not the chat template that the run began with/);
    rmSync(template);
    const gone = await run(...resume.slice(0, -1), join(temporary(), "gone"), "--device", "cpu", "--json");
    t.is(gone.status, 0, gone.stderr);
    t.deepEqual(losses(gone.stdout), all.slice(2));
  },
);

test.serial(
  "a relative base model is one below the adapter's folder, then one below the working directory",
  async (t) => {
    const { model, output, train } = setUp();
    t.is((await run(...train, "--steps", "1")).status, 0);
    const config = join(output, "adapter_config.json");
    // The stored path is absolute, since PEFT resolves a relative one against the working directory.
    t.is(json(config)["base_model_name_or_path"], model);
    const said = (base: string): void =>
      writeFileSync(config, JSON.stringify({ ...json(config), base_model_name_or_path: base }));
    const generate = [
      "generate",
      "--adapter",
      output,
      "--prompt",
      "a",
      "--device",
      "cpu",
      "--max-tokens",
      "4",
    ];
    const expected = (await run(...generate)).stdout;
    cpSync(model, join(output, "..", "base"), { recursive: true });
    renameSync(model, `${model}-moved`);
    said("../base");
    const commands: string[][] = [
      generate,
      ["evaluate", "--adapter", output, "--data", train[4] as string, "--device", "cpu"],
      ["merge", "--adapter", output, "--output", join(temporary(), "merged")],
      ["export", "--adapter", output, "--format", "gguf", "--output", join(temporary(), "a.gguf")],
      ["export", "--adapter", output, "--format", "peft", "--output", join(temporary(), "peft")],
    ];
    for (const command of commands) {
      const { status, stderr } = await run(...command);
      t.is(status, 0, `${command[0]}: ${stderr}`);
    }
    t.is((await run(...generate)).stdout, expected);
    // In another folder the path has the meaning that it has there.
    const copy = commands.at(-1)?.at(-1) as string;
    t.is(json(join(copy, "adapter_config.json"))["base_model_name_or_path"], join(output, "..", "base"));
    t.regex((await run("inspect", output)).stdout, /made for +\.\.\/base, at .*base/);
    // Adapters of earlier versions have paths relative to the folder that they were trained in.
    said(relative(process.cwd(), `${model}-moved`));
    t.is((await run(...generate)).stdout, expected);
    said("gone/away/model");
    const places = [join(output, "gone/away/model"), join(process.cwd(), "gone/away/model")];
    const others = [["merge", "--adapter", output, "--output", join(temporary(), "other")]];
    for (const command of [...commands.slice(0, 2), ...others]) {
      const { status, stderr } = await run(...command);
      t.not(status, 0);
      t.regex(stderr, ONE_LINE);
      for (const place of places) t.true(stderr.includes(place), stderr);
    }
    const exported = await run(...(commands[3] as string[]).slice(0, -1), join(temporary(), "b.gguf"));
    for (const place of places) t.true(exported.stderr.includes(place), exported.stderr);
    t.regex(
      (await run("inspect", output)).stdout,
      /made for +gone\/away\/model, found neither at .* nor at /,
    );
  },
);

test.serial("a name on a hub does not refer to a folder without a model next to the adapter", async (t) => {
  const { output, train } = setUp();
  t.is((await run(...train, "--steps", "1")).status, 0);
  const config = join(output, "adapter_config.json");
  writeFileSync(config, JSON.stringify({ ...json(config), base_model_name_or_path: "owner/tiny" }));
  mkdirSync(join(output, "owner", "tiny"), { recursive: true });
  const { status, stderr } = await run("generate", "--adapter", output, "--prompt", "a", "--offline");
  t.is(status, 1);
  t.regex(stderr, /owner\/tiny.*cache/s);
});
