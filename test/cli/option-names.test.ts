/** Messages of the command line name its flags, or the keys of its YAML file, and never the library's options. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { Command } from "commander";

import { declareFlags } from "../../src/cli/finetune/options.js";
import { PLACES } from "../../src/cli/finetune/places.js";
import { findFlag } from "../../src/cli/finetune/option-names.js";
import {
  nameOptions,
  optionName,
  optionSetting,
  runWithOptionNames,
} from "../../src/arguments/option-name.js";
import { ADAPTER_REFUSALS } from "../../src/refusals/adapters.js";
import { QUANTISED_REFUSALS } from "../../src/refusals/quantised.js";
import { TRAINING_REFUSALS } from "../../src/refusals/training.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { ONE_LINE, runHere as run } from "./lowrank.js";

const model = tinyModel();
const data = tinyData();
const folder = temporary();

const command = declareFlags(new Command("finetune"));
const names = (option: string): string | undefined => findFlag(command, option);

test("each option of finetune has its flag, with and without the name of its group", (t) => {
  for (const [flag, place] of Object.entries(PLACES)) {
    const declared = command.options.find((one) => one.attributeName() === flag);
    t.truthy(declared, flag);
    t.is(names(place.join(".")), declared?.long ?? "", place.join("."));
    t.is(names(place.at(-1) as string), declared?.long ?? "", flag);
  }
  // Conversely, each flag that the library takes has an option.
  const apart = new Set(["config", "json"]);
  for (const one of command.options)
    if (!apart.has(one.attributeName())) t.true(Object.hasOwn(PLACES, one.attributeName()), one.long ?? "");
});

test("the library names its options", (t) => {
  t.is(optionName("batchSize"), "batchSize");
  t.is(optionSetting("gradientCheckpointing", true), "gradientCheckpointing true");
  t.is(nameOptions("lower `r`[, or set `rankPattern`]"), "lower r, or set rankPattern");
});

test.serial("a command names its flags, and drops options without a flag", async (t) => {
  await runWithOptionNames(names, async () => {
    t.is(optionName("optimizer.lr"), "--lr");
    t.is(optionSetting("gradientCheckpointing", true), "--grad-checkpointing");
    t.is(optionSetting("batchSize", 4), "--batch-size 4");
    t.is(nameOptions("lower `r`[, or set `rankPattern`]"), "lower --rank");
  });
  t.is(optionName("batchSize"), "batchSize");
});

test.serial("no refusal of a run names a library option that has a flag", async (t) => {
  const options = Object.values(PLACES).map((place) => place.at(-1) as string);
  const camel = options.filter((name) => /[A-Z]/.test(name));
  const unnamed = new RegExp(`\\b(${camel.join("|")})\\b`);
  await runWithOptionNames(names, async () => {
    for (const refusals of [TRAINING_REFUSALS, ADAPTER_REFUSALS, QUANTISED_REFUSALS]) {
      for (const [key, { what, where, reason, instead }] of Object.entries(refusals)) {
        // Options that `finetune` lacks cannot be named by a flag.
        if (key === "resumedOptions" || key.endsWith("OfLoaded")) continue;
        t.notRegex(nameOptions(`${what} ${where}: ${reason}; ${instead}`), unnamed, key);
      }
    }
  });
});

let made = 0;
const yaml = (text: string): string => {
  const file = join(folder, `${made++}.yaml`);
  writeFileSync(file, text);
  return file;
};
const writing = (output: string): string[] => [
  ...["finetune", "--model", model, "--data", data, "--output", output],
  ...["--steps", "1", "--grad-accum", "1", "--device", "cpu"],
];
const finetune = (...argv: string[]): string[] => [...writing(join(folder, `out-${made++}`)), ...argv];

const SAID: [what: string, argv: () => string[], message: RegExp][] = [
  [
    "targets",
    () => finetune("--targets", "q_proj,v_porj"),
    /--targets: "v_porj" matches .*\(did you mean v_proj\?\)/,
  ],
  [
    "all targets",
    () => finetune("--targets", "v_porj"),
    /--targets: \[v_porj\] matches .*\(did you mean v_proj\?\)/,
  ],
  [
    "modules",
    () => finetune("--modules-to-save", "lm_head,embed_tokns"),
    /--modules-to-save: "embed_tokns" .*\(did you mean embed_tokens\?\)/,
  ],
  ["odd ranks", () => finetune("--init", "orthogonal", "--rank", "3"), /--init orthogonal with an odd rank/],
  ["a rank", () => finetune("--init", "pissa", "--rank", "4096"), /take a lower rank$/m],
  [
    "DoRA and PiSSA",
    () => finetune("--init", "pissa", "--dora"),
    /--dora with --init pissa or olora, which subtract the start from the weight/,
  ],
  [
    "a split",
    () => [
      "finetune",
      "--model",
      model,
      "--data",
      one,
      "--eval-split",
      "0.5",
      "--output",
      join(folder, `out-${made++}`),
    ],
    /--eval-split: the data has 1 row/,
  ],
  [
    "targets of a file",
    () => finetune("--config", yaml("targets: [q_proj, v_porj]")),
    /targets in .*\.yaml: "v_porj" matches/,
  ],
  [
    "an init of a file",
    () => finetune("--rank", "3", "--config", yaml("init: orthogonal")),
    /init in .*\.yaml orthogonal with an odd rank/,
  ],
];

const one = join(folder, "one.jsonl");
writeFileSync(one, '{"text":"a single row"}\n');

for (const [what, argv, message] of SAID) {
  test.serial(`a message names the flag or the key: ${what}`, async (t) => {
    const { status, stderr } = await run(...argv());
    t.is(status, 1);
    t.regex(stderr, message);
    t.regex(stderr, ONE_LINE);
    t.notRegex(stderr, /targetModules|modulesToSave|initLoraWeights|useDora|evalSplit|rankPattern/);
  });
}

test.serial("a resumed run names flags, in errors and warnings", async (t) => {
  const output = join(folder, "resumed");
  const first = await run(...writing(output), "--save-every", "1");
  t.is(first.status, 0, first.stderr);
  const fixed = await run("finetune", "--resume", output, "--rank", "3", "--batch-size", "2");
  t.is(fixed.status, 1);
  t.regex(fixed.stderr, /--rank was 16, and is 3 now; --batch-size was 1, and is 2 now/);
  const optimizer = await run("finetune", "--resume", output, "--optimizer", "lion");
  t.is(optimizer.status, 1);
  t.regex(optimizer.stderr, /--optimizer was adamw, and is lion now/);
  const changed = await run("finetune", "--resume", output, "--lr", "0.1", "--steps", "2");
  t.regex(changed.stderr, /warning: resume: --lr was 0\.0002, and is 0\.1 now/);
  const fewer = await run("finetune", "--resume", output, "--epochs", "0.001");
  t.is(fewer.status, 1);
  t.regex(fewer.stderr, /is after step 2, and --epochs 0\.001 ends at step 1; give more epochs/);
  const again = await run(...writing(output));
  t.is(again.status, 1);
  t.regex(
    again.stderr,
    /already contains a run; continue it with --resume, replace it with --yes, or choose another folder with --output/,
  );
  t.true(readFileSync(join(output, "adapter_config.json"), "utf8").length > 0);
});
