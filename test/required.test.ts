/**
 * The package where `require` loads modules and where it does not, as in Electron 33 and in Node before 20.19: it is one
 * implementation in a process, whether it is imported or required.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

import { temporary } from "./hashed.js";
import { installedProject } from "./packed.js";

/** Compares what is imported with what is required, and trains by either. */
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

/** Rows in files whose readers are packages that are loaded when they are needed. */
function rows(): string {
  const folder = temporary();
  writeFileSync(join(folder, "rows.csv"), "prompt,completion\nOne?,1.\nTwo?,2.\n");
  writeFileSync(join(folder, "rows.jsonl"), '{"prompt":"One?","completion":"1."}\n');
  const parquet = fileURLToPath(new URL("data/goldens/completion.parquet", import.meta.url));
  cpSync(parquet, join(folder, "completion.parquet"));
  return folder;
}

/** What the program prints with options of Node. */
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

test.serial("where require loads modules, what is imported and required is the one module", (t) => {
  t.is(printed([]), "2,2,2 0\n");
});

test.serial("where require loads no modules, what is imported and required is the one of CommonJS", (t) => {
  t.regex(printed(["--no-experimental-require-module"]), /^2,2,2 [1-9]\d*\n$/);
});
