import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import test from "ava";
import { applyConfigFile } from "../../src/cli/finetune/config-file.js";
import {
  checkFlags,
  declareFlags,
  type Flags,
  listGivenOptions,
  toLibraryOptions,
} from "../../src/cli/finetune/options.js";
import { formatResumeCommand } from "../../src/cli/finetune/resume.js";
import { temporary } from "../hashed.js";

const folder = temporary();

async function flags(argv: string[], file = "", recipe = ""): Promise<Flags> {
  const command = declareFlags(new Command("finetune")).exitOverride();
  command.parse(argv, { from: "user" });
  for (const [text, strength] of [
    [file, "config"],
    [recipe, "default"],
  ] as const) {
    if (text === "") continue;
    const path = join(folder, `${Math.random()}.yaml`);
    writeFileSync(path, text);
    await applyConfigFile(command, path, strength);
  }
  const result = command.opts<Flags>();
  checkFlags(result);
  return result;
}

test("true and false in a file are values if the option allows them", async (t) => {
  t.is(toLibraryOptions(await flags(["--data", "d"], "init: false")).lora?.initLoraWeights, false);
  t.is(toLibraryOptions(await flags(["--data", "d"], "init: true")).lora?.initLoraWeights, true);
  for (const wrong of ["lr: true", "output: false", "targets: true"])
    await t.throwsAsync(flags(["--data", "d"], wrong), { message: /needs a value, got (true|false)$/ });
});

test("defaults", async (t) => {
  const options = toLibraryOptions(await flags(["--data", "d.txt"]));
  t.like(options, {
    data: "d.txt",
    output: "./lowrank-out",
    schedule: "linear",
    batchSize: 1,
    gradientAccumulation: 8,
    clipNorm: 1,
    seed: 0,
    trainOn: "completion",
    labelSmoothing: 0,
    device: "auto",
  });
  t.like(options.lora, { r: 16, loraAlpha: 32, loraDropout: 0, targetModules: "all-linear", bias: "none" });
  t.deepEqual(options.optimizer, { lr: 2e-4, weightDecay: 0.01 });
  for (const key of [
    "steps",
    "epochs",
    "warmup",
    "evalSplit",
    "resume",
    "dtype",
    "quantize",
    "matmulPrecision",
  ])
    t.false(key in options, key);
});

test("alpha follows the rank by default", async (t) => {
  t.is(toLibraryOptions(await flags(["--rank", "4"])).lora?.loraAlpha, 8);
  t.is(toLibraryOptions(await flags(["--rank", "4", "--alpha", "3"])).lora?.loraAlpha, 3);
});

test("flags become the library's option names", async (t) => {
  const argv =
    "--model m --data d.jsonl --targets q_proj,v_proj --modules-to-save a,b --rslora --warmup 0 --epochs 0.5 " +
    "--dora --init pissa_niter_4 --loraplus-ratio 8 --grad-checkpointing --packing --eval-split 0.1 --eval-every 5 --save-every 7 --resume --dtype bf16 --quantize nf4 --device gpu:1";
  const options = toLibraryOptions(await flags(argv.split(" ")));
  t.like(options, {
    model: "m",
    data: "d.jsonl",
    warmup: 0,
    epochs: 0.5,
    gradientCheckpointing: true,
    packing: true,
    evalSplit: 0.1,
    evalEvery: 5,
    saveEvery: 7,
    resume: true,
    dtype: "bf16",
    quantize: "nf4",
    matmulPrecision: "bf16",
    device: "gpu:1",
  });
  t.is(
    toLibraryOptions(await flags(["--dtype", "bf16", "--matmul-precision", "exact"])).matmulPrecision,
    "exact",
  );
  t.is(toLibraryOptions(await flags(["--matmul-precision", "f16"])).matmulPrecision, "f16");
  t.like(options.lora, {
    targetModules: ["q_proj", "v_proj"],
    modulesToSave: ["a", "b"],
    useRslora: true,
    useDora: true,
    initLoraWeights: "pissa_niter_4",
  });
  t.is(options.optimizer?.loraPlusRatio, 8);
});

test("an optimizer has its own default rate, from the command line and from a file", async (t) => {
  const rates = { adamw: 2e-4, adam: 2e-4, sgd: 1e-2, adafactor: 1e-2, lion: 2e-5 };
  for (const [type, lr] of Object.entries(rates)) {
    t.deepEqual(toLibraryOptions(await flags(["--optimizer", type])).optimizer, {
      type,
      lr,
      weightDecay: 0.01,
    });
    t.is(toLibraryOptions(await flags([], `optimizer: ${type}`)).optimizer?.lr, lr);
  }
  const given = await flags(["--optimizer", "sgd", "--momentum", "0.5"], "optimizer: lion\nlr: 3e-3");
  t.deepEqual(toLibraryOptions(given).optimizer, { type: "sgd", lr: 3e-3, momentum: 0.5, weightDecay: 0.01 });
  await t.throwsAsync(flags(["--optimizer", "adamx"]), { message: /adamw, adam, sgd, adafactor, lion/ });
});

test("the command line overrides the file, and the file overrides the recipe", async (t) => {
  const file = "rank: 8\nlr: 1e-3\ntargets: [q_proj, k_proj]\nrslora: true\nseed: null\nresume: true";
  const result = await flags(["--rank", "4"], file, "rank: 2\nlr: 5\nbatch-size: 3");
  t.is(result.rank, 4);
  t.is(result.lr, 1e-3);
  t.deepEqual(result.targets, ["q_proj", "k_proj"]);
  t.true(result.rslora);
  t.is(result.seed, 0);
  t.true(result.resume);
  t.is(result.batchSize, 3);
});

test("an option given on the command line replaces its alternative in a file", async (t) => {
  const result = await flags(["--steps", "3"], "epochs: 2", "eval-split: 0.1");
  t.is(result.steps, 3);
  t.is(result.epochs, undefined);
  t.is(result.evalSplit, 0.1);
  await t.throwsAsync(flags(["--data", "d"], "epochs: 2\nsteps: 3"), { message: /not both/ });
});

test("the command that resumes a stopped run names its folder", (t) => {
  t.is(formatResumeCommand("out"), "lowrank finetune --resume out");
  t.is(formatResumeCommand("my out", { json: true }, false), "lowrank finetune --resume 'my out' --json");
  t.is(
    formatResumeCommand("it's", { data: ["-"] }, false),
    String.raw`lowrank finetune --resume 'it'\''s' --data -`,
  );
  t.is(
    formatResumeCommand(String.raw`C:\my runs\out`, {}, true),
    String.raw`lowrank finetune --resume "C:\my runs\out"`,
  );
});

test("a resumed run gets only the given options, and no defaults", async (t) => {
  const command = declareFlags(new Command("finetune")).exitOverride();
  command.parse(["--resume", "out", "--steps", "40", "--dtype", "bf16"], { from: "user" });
  t.deepEqual(listGivenOptions(command), {
    resume: "out",
    steps: 40,
    dtype: "bf16",
    matmulPrecision: "bf16",
  });
});
