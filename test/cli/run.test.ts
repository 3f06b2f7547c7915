import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import test from "ava";
import type { TrainEvent } from "../../src/train/events.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const model = tinyModel();
const data = tinyData();

interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the command line in a process of its own; `watch` sees each line of stdout as it comes. */
function lowrank(
  argv: string[],
  { watch, env = {} }: { watch?: (line: string, child: ChildProcess) => void; env?: NodeJS.ProcessEnv } = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--import=tsx", main, ...argv], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    let seen = 0;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      const lines = stdout.split("\n").slice(0, -1);
      for (const line of lines.slice(seen)) watch?.(line, child);
      seen = lines.length;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}

const events = (stdout: string): TrainEvent[] =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as TrainEvent);

const adapterBytes = (folder: string): Buffer => readFileSync(join(folder, "adapter_model.safetensors"));

function finetune(output: string, ...more: string[]): string[] {
  const common = ["--model", model, "--device", "cpu", "--rank", "4", "--lr", "0.01", "--batch-size", "2"];
  const all = ["finetune", "--output", output, "--grad-accum", "2", "--json", ...common, ...more];
  return all.includes("--data") ? all : [...all, "--data", data];
}

/** Interrupts once, at the first event of a kind. */
function interruptAt(type: TrainEvent["type"]): (line: string, child: ChildProcess) => void {
  let sent = false;
  return (line, child) => {
    if (sent || (JSON.parse(line) as TrainEvent).type !== type) return;
    sent = true;
    child.kill("SIGINT");
  };
}

test.serial("fine-tune, generate, evaluate, merge", async (t) => {
  const output = join(temporary(), "out");
  const trained = await lowrank(finetune(output, "--steps", "6", "--eval-split", "0.2", "--save-every", "3"));
  t.is(trained.stderr, "");
  t.is(trained.status, 0);
  const all = events(trained.stdout);
  t.is(all[0]?.type, "start");
  t.like(all.at(-1), { type: "end", adapter: output, steps: 6, stopped: false });
  t.true(existsSync(join(output, "adapter_config.json")));

  const written = await lowrank([
    "generate",
    "--adapter",
    output,
    "--prompt",
    "the whale",
    "--max-tokens",
    "5",
    "--json",
  ]);
  t.is(written.status, 0, written.stderr);
  const { text, tokens } = JSON.parse(written.stdout) as { text: string; tokens: number[] };
  t.is(typeof text, "string");
  t.true(tokens.length <= 5);

  const merged = join(temporary(), "merged");
  const merging = await lowrank(["merge", "--adapter", output, "--output", merged]);
  t.is(merging.status, 0, merging.stderr);
  const losses = [];
  for (const which of [
    ["--adapter", output],
    ["--model", merged],
    ["--model", model],
  ]) {
    const evaluated = await lowrank(["evaluate", ...which, "--data", data, "--device", "cpu", "--json"]);
    t.is(evaluated.status, 0, evaluated.stderr);
    losses.push((JSON.parse(evaluated.stdout) as { loss: number }).loss);
  }
  const [adapted = NaN, folded = NaN, base = NaN] = losses;
  t.true(Math.abs(adapted / folded - 1) < 1e-5, `${losses}`);
  t.true(adapted < base, `${losses}`);

  const again = await lowrank(finetune(output, "--steps", "1"));
  t.is(again.status, 1);
  t.regex(again.stderr, /^lowrank: [^\n]+\n$/);
});

test.serial(
  "Ctrl-C finishes the step, saves, and prints the command that goes on to the same bits",
  async (t) => {
    const [whole, cut] = [join(temporary(), "out"), join(temporary(), "out")];
    t.is((await lowrank(finetune(whole, "--steps", "12"))).status, 0);
    const stopped = await lowrank(finetune(cut, "--steps", "12"), { watch: interruptAt("step") });
    t.is(stopped.status, 130, stopped.stderr);
    const end = events(stopped.stdout).at(-1);
    t.like(end, { type: "end", stopped: true });
    const command = /to go on: lowrank (.*)\n/.exec(stopped.stderr)?.[1] ?? "";
    t.regex(command, /--resume$/);
    t.true(readdirSync(cut).some((name) => name.startsWith("checkpoint-")));
    const resumed = await lowrank(command.split(" "));
    t.is(resumed.status, 0, resumed.stderr);
    t.true(adapterBytes(whole).equals(adapterBytes(cut)));
  },
);

test.serial("a second Ctrl-C ends at once", async (t) => {
  const output = join(temporary(), "out");
  const argv = finetune(output, "--data", tinyData(20_000), "--grad-accum", "10000");
  let second = NaN;
  const ended = await lowrank(argv, {
    watch: (line, child) => {
      if ((JSON.parse(line) as TrainEvent).type !== "start") return;
      child.kill("SIGINT");
      setTimeout(() => {
        second = performance.now();
        child.kill("SIGINT");
      }, 500);
    },
  });
  t.is(ended.status, 130, ended.stderr);
  t.true(performance.now() - second < 5000);
});

test.serial("bad input: one line, status 1, nothing left behind", async (t) => {
  const folder = temporary();
  const rows = join(folder, "rows.jsonl");
  writeFileSync(rows, '{"text":"a"}\n{"text":');
  const file = join(folder, "file");
  writeFileSync(file, "");
  const broken = join(folder, "broken");
  mkdirSync(broken);
  writeFileSync(join(broken, "config.json"), "{");
  const cases: [string[], RegExp][] = [
    [["--data", rows], /rows\.jsonl:2: not JSON/],
    [["--data", join(folder, "absent.txt")], /no such data file/],
    [["--model", join(folder, "absent")], /absent/],
    [["--model", broken], /config\.json: not JSON/],
    [["--targets", "nothing_proj"], /nothing_proj.*q_proj/],
    [["--output", file], /file/],
  ];
  for (const [more, message] of cases) {
    const output = join(folder, "out");
    const { status, stdout, stderr } = await lowrank(finetune(output, "--steps", "1", ...more));
    t.is(status, 1, more.join(" "));
    t.is(stdout, "");
    t.regex(stderr, message);
    t.regex(stderr, /^lowrank: [^\n]+\n$/);
    t.false(existsSync(output), more.join(" "));
  }
});

test.serial("a GPU that isn't there is an error that says what is, never the CPU", async (t) => {
  const none = { VK_ICD_FILENAMES: "/nowhere.json", VK_DRIVER_FILES: "/nowhere.json" };
  if (process.platform !== "linux") return t.pass();
  const argv = ["generate", "--model", model, "--prompt", "a", "--device", "gpu"];
  const { status, stdout, stderr } = await lowrank(argv, { env: none });
  t.is(status, 1);
  t.is(stdout, "");
  t.regex(stderr, /^lowrank: no usable GPU[^\n]*\n$/);
});
