/** Options under the names of other libraries: each error names the option here, and its example works. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import type { Command } from "commander";

import { adviseLibraryOption } from "../../src/arguments/foreign-name.js";
import { FOREIGN_NAMES } from "../../src/arguments/foreign-names.js";
import { createEvaluateCommand } from "../../src/cli/evaluate.js";
import { createFinetuneCommand } from "../../src/cli/finetune/command.js";
import { createGenerateCommand } from "../../src/cli/generate.js";
import { finetune } from "../../src/train/finetune/finetune.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { ONE_LINE, runHere as run } from "./lowrank.js";

const model = tinyModel();
const data = tinyData();
const folder = temporary();

const COMMANDS: Readonly<Record<string, () => Command>> = {
  finetune: createFinetuneCommand,
  generate: createGenerateCommand,
  evaluate: createEvaluateCommand,
};

/** Returns the arguments of the example in a message. */
function readExample(stderr: string): string[] {
  const [, example] = /, such as (--.+)\n$/.exec(stderr) ?? [];
  const [, flag] = /; use (--[a-z-]+)/.exec(stderr) ?? [];
  return example?.split(" ") ?? (flag === undefined ? [] : [flag]);
}

test.serial("what the messages of finetune and generate advise is accepted", async (t) => {
  for (const name of new Set(FOREIGN_NAMES.flatMap(({ names }) => names))) {
    let followed = 0;
    for (const [title, create] of Object.entries(COMMANDS)) {
      const flag = `--${name.replaceAll("_", "-")}`;
      if (create().options.some(({ long }) => long === flag)) {
        // Another library's name that is also a name here.
        followed++;
        continue;
      }
      const needed = title === "evaluate" ? ["--data", data] : title === "generate" ? ["--prompt", "a"] : [];
      for (const given of [flag, `--${name}`]) {
        const { status, stdout, stderr } = await run(title, ...needed, given);
        t.is(status, 2);
        t.is(stdout, "");
        t.regex(stderr, ONE_LINE);
        if (!stderr.includes("; use --")) continue;
        followed++;
        const { unknown, operands } = create().exitOverride().parseOptions(readExample(stderr));
        t.deepEqual([unknown, operands], [[], []], stderr);
      }
    }
    t.true(followed > 0, `${name}: no command names its option`);
  }
});

test.serial("a run with the flags that the errors name", async (t) => {
  const names = [
    "--learning-rate",
    "--lora-r",
    "--lora_alpha",
    "--per-device-train-batch-size",
    "--mask-prompt",
  ];
  const argv = ["finetune", "--model", model, "--data", data];
  const advised: string[] = [];
  for (const name of [...names, "--gradient-accumulation-steps", "--fine-tune-type"])
    advised.push(...readExample((await run(...argv, name)).stderr));
  const { status, stderr } = await run(
    ...argv,
    ...advised,
    ...["--steps", "1", "--device", "cpu", "--output", join(folder, "out")],
  );
  t.is(status, 0, stderr);
  const { options } = JSON.parse(readFileSync(join(folder, "out", "run.json"), "utf8")) as {
    options: Record<string, unknown>;
  };
  t.like(options, {
    lora: { r: 8, loraAlpha: 16, useDora: true },
    optimizer: { lr: 2e-4 },
    batchSize: 2,
    gradientAccumulation: 4,
  });
});

test.serial("known names: the first words of each message", async (t) => {
  const cases: [argv: string[], message: string][] = [
    [["finetune", "--learning-rate", "1e-4"], "use --lr <rate>, the peak learning rate"],
    [["finetune", "--num-epochs", "3"], "use --epochs <n>, a number of passes"],
    [["finetune", "--num-layers", "4"], "use --targets <names>, names of layers"],
    [["finetune", "--mask-prompt"], "use --train-on <what>, the trained part"],
    [["finetune", "--lora-r", "8"], "use --rank <n>, the rank of the adapter"],
    [["finetune", "--lora_alpha", "8"], "use --alpha <n>, a number that is divided by the rank"],
    [["finetune", "--per-device-train-batch-size=2"], "use --batch-size <n>, a number of rows"],
    [["finetune", "--gradient-accumulation-steps", "2"], "use --grad-accum <n>, a number of batches"],
    [["finetune", "--iters", "9"], "use --steps <n>, a number of optimizer steps"],
    [["finetune", "--fine-tune-type", "dora"], "use --dora, DoRA instead of LoRA"],
    [["finetune", "--adapter-path", "a"], "use --output <folder>, the folder of the new adapter"],
    [["generate", "--adapter-path", "a"], "use --adapter <folder>, the folder of an adapter"],
    [["generate", "--n-predict", "9"], "use --max-tokens <n>, the maximum number of tokens"],
  ];
  for (const [argv, message] of cases) {
    const { status, stderr } = await run(...argv);
    t.is(status, 2);
    t.true(stderr.includes(`'; ${message}`), stderr);
  }
});

test.serial("a key of a file under another library's name: the key here, which works", async (t) => {
  const output = join(folder, "keys");
  const file = join(folder, "keys.yaml");
  const argv = ["finetune", "--model", model, "--data", data, "--device", "cpu", "--steps", "1"];
  writeFileSync(file, "learning_rate: 1e-4\n");
  const wrong = await run(...argv, "--config", file);
  t.is(wrong.status, 2);
  const [, key] = /unknown key "learning_rate"; use lr, .*, such as "(.+)"\n/.exec(wrong.stderr) ?? [];
  writeFileSync(file, `${key}\n`);
  t.is((await run(...argv, "--output", output, "--config", file)).status, 0);
});

test.serial("the files of a sweep, too", async (t) => {
  const file = join(folder, "sweep.yaml");
  for (const text of ["space: {learning_rate: [1e-4]}", "space: {lr: [1e-4]}\nlearning_rate: 1e-3"]) {
    writeFileSync(file, `${text}\n`);
    const { status, stderr } = await run("sweep", "--config", file);
    t.is(status, 2);
    t.regex(stderr, /unknown key "learning_rate"; use lr, the peak learning rate/);
  }
});

test("the library's options: the error names the option, and its group", async (t) => {
  const cases: [options: object, message: string][] = [
    [{ learningRate: 1e-4 }, "there is no option learningRate; use optimizer.lr, the peak learning rate"],
    [
      { optimizer: { learningRate: 1e-4 } },
      "there is no option learningRate; use lr, the peak learning rate",
    ],
    [{ loraR: 4 }, "there is no option loraR; use lora.r, the rank of the adapter"],
    [{ numLayers: 4 }, "there is no option numLayers; use lora.layersToTransform, "],
    [{ perDeviceTrainBatchSize: 4 }, "there is no option perDeviceTrainBatchSize; use batchSize, "],
    [{ lora: { rank: 4 } }, "inject: there is no option rank; use r, the rank of the adapter"],
  ];
  for (const [options, message] of cases) {
    const given = { model, data, device: "cpu", output: join(folder, "none"), ...options } as never;
    const error = await t.throwsAsync(async () => finetune(given).result, { code: "ERR_OPTION" });
    t.true(error?.message.includes(message), error?.message);
  }
  t.is(adviseLibraryOption("maxTokens", ["maxNewTokens"])?.startsWith("use maxNewTokens, "), true);
  t.is(adviseLibraryOption("lr", ["lr"]), undefined);
});
