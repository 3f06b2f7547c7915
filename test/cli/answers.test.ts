/** A command that answers a question exits with status 0 for yes and 1 for no. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import type { Estimate } from "../../src/index.js";
import { temporary, tinyData, tinyModel } from "../hashed.js";
import { runHere as run } from "./lowrank.js";

const model = tinyModel();
const data = tinyData();

test.serial("estimate: whether the run fits", async (t) => {
  const common = ["estimate", "--model", model, "--data", data, "--steps", "1", "--device", "cpu"];
  for (const [memory, status, fits] of [
    ["1GB", 0, true],
    ["10KB", 1, false],
  ] as const) {
    const json = await run(...common, "--memory", memory, "--json");
    t.is(json.status, status, json.stderr);
    t.is(json.stderr, "");
    t.is((JSON.parse(json.stdout) as Estimate).fits, fits);
    const lines = await run(...common, "--memory", memory);
    t.is(lines.status, status);
    t.is(lines.stderr, "");
    t.regex(lines.stdout, fits ? /fits +yes/ : /fits +no/);
  }
});

test.serial("inspect: whether a model can be loaded", async (t) => {
  t.is((await run("inspect", model)).status, 0);
  const folder = join(temporary(), "other");
  cpSync(model, folder, { recursive: true });
  const file = join(folder, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  writeFileSync(
    file,
    JSON.stringify({ ...config, model_type: "mamba", architectures: ["MambaForCausalLM"] }),
  );
  const no = await run("inspect", folder);
  t.is(no.status, 1, no.stdout);
  t.is(no.stderr, "");
  t.regex(no.stdout, /It cannot be loaded:/);
  t.is((await run("inspect", folder, "--json")).status, 1);
});
