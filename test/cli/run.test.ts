import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import test from "ava";
import type { TrainEvent } from "../../src/train/events.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { lowrank, withDefaults } from "./lowrank.js";

const model = tinyModel();
const data = tinyData();

const events = (stdout: string): TrainEvent[] =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as TrainEvent);

const adapterBytes = (folder: string): Buffer => readFileSync(join(folder, "adapter_model.safetensors"));

function finetune(output: string, ...more: string[]): string[] {
  const common = { model, device: "cpu", rank: "4", lr: "0.01", "batch-size": "2", "grad-accum": "2", data };
  return withDefaults(["finetune", "--output", output, "--json", ...more], common);
}

test.serial("fine-tune, generate, evaluate, merge", async (t) => {
  const output = join(temporary(), "out");
  const trained = await lowrank(finetune(output, "--steps", "6", "--eval-split", "0.2", "--save-every", "3"));
  t.is(trained.stderr, "");
  t.is(trained.status, 0);
  const all = events(trained.stdout);
  t.is(all.find(({ type }) => type !== "progress")?.type, "start");
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

  // Half storage rounds each weight by some thousandths.
  for (const dtype of ["f16", "bf16"]) {
    const half = ["--adapter", output, "--dtype", dtype, "--device", "cpu", "--json"];
    const evaluated = await lowrank(["evaluate", "--data", data, ...half]);
    t.is(evaluated.status, 0, evaluated.stderr);
    const { loss } = JSON.parse(evaluated.stdout) as { loss: number };
    t.true(loss !== adapted && Math.abs(loss / adapted - 1) < 0.01, `${dtype}: ${loss} for ${adapted}`);
    const short = await lowrank(["generate", "--prompt", "the whale", "--max-tokens", "3", ...half]);
    t.is(short.status, 0, short.stderr);
    t.true((JSON.parse(short.stdout) as { tokens: number[] }).tokens.length <= 3);
  }

  const again = await lowrank(finetune(output, "--steps", "1"));
  t.is(again.status, 1);
  t.regex(again.stderr, /^lowrank: [^\n]+\n$/);
});

test.serial(
  "Ctrl-C finishes the step, saves, and prints the command that resumes to the same bits",
  async (t) => {
    const [whole, cut] = [join(temporary(), "out"), join(temporary(), "out")];
    t.is((await lowrank(finetune(whole, "--steps", "12"))).status, 0);
    const stopped = await lowrank(finetune(cut, "--steps", "12"), { signal: ["SIGINT", "step"] });
    t.is(stopped.status, 130, stopped.stderr);
    const end = events(stopped.stdout).at(-1);
    t.like(end, { type: "end", stopped: true });
    const command = /resume with: lowrank (.*)\n/.exec(stopped.stderr)?.[1] ?? "";
    t.is(command, `finetune --resume ${cut} --json`);
    t.true(readdirSync(cut).some((name) => name.startsWith("checkpoint-")));
    const resumed = await lowrank(command.split(" "));
    t.is(resumed.status, 0, resumed.stderr);
    t.true(adapterBytes(whole).equals(adapterBytes(cut)));
  },
);

test.serial("a second Ctrl-C ends at once", async (t) => {
  const output = join(temporary(), "out");
  // One step of some ten thousand micro-batches takes some twenty seconds, so both signals arrive within it. The
  // first comes well after the start, since a run stopped before its first step has no step to finish.
  const long = [
    "--data",
    tinyData(20_000),
    "--grad-accum",
    "10000",
    "--batch-size",
    "1",
    "--max-length",
    "16",
  ];
  const argv = finetune(output, ...long);
  let second = NaN;
  const ended = await lowrank(argv, {
    watch: (line, child) => {
      if ((JSON.parse(line) as TrainEvent).type === "start") child.kill("SIGINT");
    },
    // Once the first signal was handled, since two pending signals are delivered as one.
    errors: (stderr, child) => {
      if (!Number.isNaN(second) || !stderr.includes("Ctrl-C again stops at once")) return;
      second = performance.now();
      child.kill("SIGINT");
    },
  });
  const took = performance.now() - second;
  t.is(ended.status, 130, ended.stderr);
  t.false(ended.stdout.includes('"type":"step"'), "the step was over before the second signal");
  t.true(took < 5000, `${took} ms after the second signal`);
});

test.serial(
  "--adapter starts from an adapter, and takes its model and rank; another rank is refused",
  async (t) => {
    const [first, next] = [join(temporary(), "out"), join(temporary(), "out")];
    t.is((await lowrank(finetune(first, "--steps", "3"))).status, 0);
    const common = ["--data", data, "--device", "cpu", "--steps", "2", "--json", "--output", next];
    const estimated = await lowrank([
      "estimate",
      "--adapter",
      first,
      "--data",
      data,
      "--device",
      "cpu",
      "--json",
    ]);
    t.is(estimated.status, 0, estimated.stderr);
    const refused = await lowrank(["finetune", "--adapter", first, "--rank", "8", ...common]);
    t.is(refused.status, 1);
    t.regex(refused.stderr, /^lowrank: .* is 8, and the adapter has 4.*leave them out/);
    t.false(existsSync(next));
    const onward = await lowrank(["finetune", "--adapter", first, ...common]);
    t.is(onward.status, 0, onward.stderr);
    t.is(onward.stderr, "");
    const start = events(onward.stdout).find(({ type }) => type === "start");
    t.like(start, { rank: 4, alpha: 8, adapter: first, model, resumedFrom: 0 });
    // A longer run, from the last step.
    const longer = await lowrank(["finetune", "--resume", next, "--steps", "4", "--json"]);
    t.is(longer.status, 0, longer.stderr);
    t.like(events(longer.stdout).at(-1), { type: "end", steps: 4 });
    const alone = await lowrank(["finetune", "--adapter", first]);
    t.is(alone.status, 2);
    t.regex(alone.stderr, /--adapter needs --data FILE/);
    const over = await lowrank(["finetune", "--adapter", first, "--data", data, "--output", first]);
    t.is(over.status, 1);
    t.regex(over.stderr, /is the folder of the adapter that the run starts from/);
  },
);

test.serial(
  "--threads and --priority apply to a run, are read from YAML and recorded; no bit depends on them",
  async (t) => {
    const [plain, limited] = [join(temporary(), "out"), join(temporary(), "out")];
    t.is((await lowrank(finetune(plain, "--steps", "4"))).status, 0);
    const file = join(temporary(), "run.yaml");
    writeFileSync(file, "threads: 1\npriority: background\n");
    const ended = await lowrank(finetune(limited, "--steps", "4", "--config", file));
    t.is(ended.status, 0, ended.stderr);
    t.like(
      events(ended.stdout).find(({ type }) => type === "start"),
      { threads: 1, priority: "background" },
    );
    const { options } = JSON.parse(readFileSync(join(limited, "run.json"), "utf8")) as { options: object };
    t.like(options, { threads: 1, priority: "background" });
    t.true(adapterBytes(plain).equals(adapterBytes(limited)));
    const resumed = await lowrank([
      "finetune",
      "--resume",
      limited,
      "--steps",
      "6",
      "--priority",
      "normal",
      "--json",
    ]);
    t.is(resumed.status, 0, resumed.stderr);
    t.like(
      events(resumed.stdout).find(({ type }) => type === "start"),
      { threads: 1, priority: "normal" },
    );
    const generate = [
      "generate",
      "--adapter",
      limited,
      "--prompt",
      "the",
      "--max-tokens",
      "4",
      "--device",
      "cpu",
      "--json",
    ];
    const texts = await Promise.all([
      lowrank(generate),
      lowrank([...generate, "--threads", "1", "--priority", "background"]),
    ]);
    t.is(texts[0]?.stdout, texts[1]?.stdout);
    // Above the number of cores the library refuses it, by the name of the flag.
    for (const argv of [
      finetune(plain, "--yes", "--threads", "99999"),
      [...generate, "--threads", "99999"],
    ]) {
      const refused = await lowrank(argv);
      t.not(refused.status, 0);
      t.regex(
        refused.stderr,
        /^lowrank: \w+: --threads must be a whole number from 1 to \d+, the threads of the cpu, got 99999\n$/,
      );
    }
  },
);

/** Returns the state of a process as in `ps`: T for a stopped one. */
const stateOf = (pid: number): string => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.[0] ?? "";

/** Whether the process keeps the signal's default action: it neither catches nor ignores it. */
function hasDefaultAction(pid: number, signal: number): boolean {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const masks = [...status.matchAll(/^Sig(?:Cgt|Ign):\s*([0-9a-f]+)$/gm)].map(([, mask]) =>
    BigInt(`0x${mask}`),
  );
  return masks.length === 2 && masks.every((mask) => ((mask >> BigInt(signal - 1)) & 1n) === 0n);
}

test.serial("Ctrl-Z stops the process, and fg continues it to the same bits", async (t) => {
  if (process.platform !== "linux") return t.pass("only Linux reports the state of a process in a file");
  const [plain, stopped] = [join(temporary(), "out"), join(temporary(), "out")];
  const argv = ["--steps", "40", "--save-every", "never"];
  t.is((await lowrank(finetune(plain, ...argv))).status, 0);
  let state = "";
  let stops = false;
  let asked = false;
  const ended = await lowrank(finetune(stopped, ...argv), {
    watch: (line, child) => {
      if (asked || (JSON.parse(line) as TrainEvent).type !== "step") return;
      asked = true;
      const pid = child.pid as number;
      // The system discards SIGTSTP in a process group without a shell, as on a build server. So the action is
      // checked, and the process is stopped by SIGSTOP, which has the same effect.
      stops = hasDefaultAction(pid, constants.signals.SIGTSTP);
      child.kill("SIGSTOP");
      setTimeout(() => {
        state = stateOf(pid);
        child.kill("SIGCONT");
      }, 300);
    },
  });
  t.true(stops);
  t.is(state, "T");
  t.is(ended.status, 0, ended.stderr);
  t.true(adapterBytes(plain).equals(adapterBytes(stopped)));
});
