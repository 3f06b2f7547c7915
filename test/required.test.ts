/**
 * The package where `require` loads ES modules and where it does not, as in Electron 33 and in Node before 20.19: a
 * process has one instance of the library, imported or required.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { temporary } from "./hashed.js";
import { installedProject } from "./packed.js";

/** Compares the imported library with the required one, and trains with both. */
const PROGRAM = `
const assert = require("node:assert/strict");
const { existsSync } = require("node:fs");
const { dirname, join } = require("node:path");
const required = require("lowrank");
const electron = require("lowrank/electron");
const model = join(dirname(require.resolve("lowrank/package.json")), "models", "default");
const [output, rows] = process.argv.slice(2);

async function main() {
  const imported = await import("lowrank");
  const names = (module) => Object.keys(module).filter((name) => name !== "module.exports").sort();
  assert.deepEqual(names(required), names(imported));
  for (const name of names(required)) assert.equal(required[name], imported[name], name);
  const { connect, serve } = await import("lowrank/electron");
  assert.equal(connect, electron.connect);
  assert.equal(electron.LowrankError, required.LowrankError);
  assert.ok(imported.ones([2], { device: "cpu" }) instanceof required.Tensor);
  assert.throws(() => required.ones([-1], { device: "cpu" }), imported.LowrankError);

  const { port1, port2 } = new MessageChannel();
  serve(port1);
  const client = connect(port2);
  const steps = [];
  for (const name of ["rows.csv", "rows.jsonl", "completion.parquet"]) {
    const run = client.finetune({
      model, data: join(rows, name), output: join(output, name), device: "cpu", steps: 2, gradientAccumulation: 1,
    });
    steps.push((await run.result).steps);
    assert.ok(existsSync(join(output, name, "adapter_model.safetensors")));
  }
  console.log(steps.join(), Object.keys(require.cache).filter((file) => file.endsWith(".cjs") && file.includes("dist")).length);
  process.exit(0);
}
void main();
`;

const modules = fileURLToPath(new URL("../node_modules", import.meta.url));

/** Writes rows in formats whose readers are packages that are loaded on use. */
function rows(): string {
  const folder = temporary();
  writeFileSync(join(folder, "rows.csv"), "prompt,completion\nOne?,1.\nTwo?,2.\n");
  writeFileSync(join(folder, "rows.jsonl"), '{"prompt":"One?","completion":"1."}\n');
  const parquet = fileURLToPath(new URL("data/goldens/completion.parquet", import.meta.url));
  cpSync(parquet, join(folder, "completion.parquet"));
  return folder;
}

/** Returns the program's output with options of Node. */
function printed(options: readonly string[]): string {
  const folder = installedProject();
  for (const name of ["hyparquet", "hyparquet-compressors"]) {
    const link = join(folder, "node_modules", name);
    if (!existsSync(link)) symlinkSync(join(modules, name), link, "junction");
  }
  writeFileSync(join(folder, "required.cjs"), PROGRAM);
  const output = join(temporary(), "output");
  mkdirSync(output);
  return execFileSync(process.execPath, [...options, "required.cjs", output, rows()], {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: "" },
  });
}

test.serial("where require loads ES modules, import and require return the same ES module", (t) => {
  t.is(printed([]), "2,2,2 0\n");
});

test.serial("where require loads no ES modules, import and require return the same CommonJS module", (t) => {
  t.regex(printed(["--no-experimental-require-module"]), /^2,2,2 [1-9]\d*\n$/);
});
