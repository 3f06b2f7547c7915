// `npm run compare -- BASE`: compares this checkout with another one, BASE, for changes that must not change any result.
// Both must be built (`npm run build:native`, `npm run build`). Compares, byte for byte, the SPIR-V of every kernel variant,
// and of short runs on the CPU and on a GPU the adapters, the optimizer's state, the losses and the gradient norms.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const SHARED = ["--steps", "6", "--grad-accum", "2", "--max-length", "96", "--json", "--yes"];

/** The options of each run. Together they cover both devices, each storage type, and the variants of LoRA. */
const RUNS = {
  "cpu f32, dropout": ["--device", "cpu", "--dtype", "f32", "--dropout", "0.1"],
  "cpu bf16, batches of 2": ["--device", "cpu", "--dtype", "bf16", "--batch-size", "2"],
  "cpu f32, DoRA, packing": ["--device", "cpu", "--dtype", "f32", "--dora", "--packing"],
  "cpu nf4": ["--device", "cpu", "--quantize", "nf4"],
  "cpu q4_0, checkpointing": ["--device", "cpu", "--quantize", "q4_0", "--grad-checkpointing"],
  "cpu f32, PiSSA, lion": ["--device", "cpu", "--dtype", "f32", "--init", "pissa", "--optimizer", "lion"],
  "gpu f32, dropout": ["--device", "gpu", "--dtype", "f32", "--dropout", "0.1"],
  "gpu f16, batches of 2": ["--device", "gpu", "--dtype", "f16", "--batch-size", "2"],
  "gpu nf4, rsLoRA, biases": ["--device", "gpu", "--quantize", "nf4", "--rslora", "--bias", "all"],
};

/** Runs a command in a checkout and returns its output; throws if it fails. */
function run(checkout, command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: checkout,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (status !== 0)
    throw new Error(`${checkout}: ${command} ${args.join(" ")}: ${error ?? stderr.slice(-2000)}`);
  return stdout;
}

/** Builds the program that writes the kernels, with the dependencies of the addon's build; returns its path. */
function buildForms(checkout) {
  const [, target] = /^host: (.+)$/m.exec(spawnSync("rustc", ["-vV"], { encoding: "utf8" }).stdout);
  const which = ["--release", "--workspace", "--example", "forms", "--target", target];
  const output = run(checkout, "cargo", ["build", "-q", ...which, "--message-format=json"]);
  const messages = output.split("\n").filter((line) => line.startsWith("{"));
  return messages.map((line) => JSON.parse(line)).findLast(({ executable }) => executable).executable;
}

/** Returns the SPIR-V of each kernel variant, by kernel and then sorted, so that the order of variants does not matter. */
function readKernels(checkout, folder) {
  run(checkout, buildForms(checkout), ["write", folder]);
  const byKernel = {};
  for (const { file, kernel } of JSON.parse(readFileSync(join(folder, "forms.json"), "utf8")))
    (byKernel[kernel] ??= []).push(readFileSync(join(folder, `${file}.spv`)));
  for (const modules of Object.values(byKernel)) modules.sort(Buffer.compare);
  return byKernel;
}

/** Trains, and returns the files and figures that must not change. */
function train(checkout, output, options) {
  const data = join(checkout, "models", "default", "moby-dick.txt");
  const args = ["finetune", "--data", data, "--output", output, ...SHARED, ...options];
  run(checkout, process.execPath, [join(checkout, "dist", "cli", "main.js"), ...args]);
  const events = readFileSync(join(output, "events.jsonl"), "utf8").trim().split("\n");
  const steps = events.map((line) => JSON.parse(line)).filter(({ type }) => type === "step");
  if (steps.length === 0) throw new Error(`${output}: the run recorded no step`);
  const checkpoint = readdirSync(output).find((name) => name.startsWith("checkpoint-"));
  return {
    adapter: readFileSync(join(output, "adapter_model.safetensors")),
    optimizer: readFileSync(join(output, checkpoint, "optimizer.safetensors")),
    figures: Buffer.from(JSON.stringify(steps.map(({ loss, gradNorm }) => [loss, gradNorm]))),
  };
}

/** Returns the names of the values that differ. */
function listDifferences(one, other) {
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  return names.filter((name) => !one[name] || !other[name] || Buffer.compare(one[name], other[name]) !== 0);
}

function compareKernels(base, head, folder) {
  const sides = [base, head].map((checkout, i) => readKernels(checkout, join(folder, `kernels-${i}`)));
  const different = [...new Set(sides.flatMap(Object.keys))].filter((kernel) => {
    const [one = [], other = []] = sides.map((side) => side[kernel]);
    return one.length !== other.length || one.some((module, i) => Buffer.compare(module, other[i]) !== 0);
  });
  const count = Object.values(sides[1]).flat().length;
  console.log(`SPIR-V: ${count} variants of ${Object.keys(sides[1]).length} kernels; ${report(different)}`);
  return different.length;
}

function compareRuns(base, head, folder) {
  let different = 0;
  for (const [i, [name, options]] of Object.entries(RUNS).entries()) {
    const sides = [base, head].map((checkout, n) => train(checkout, join(folder, `run-${i}-${n}`), options));
    const names = listDifferences(...sides);
    different += names.length;
    console.log(`${name}: ${report(names)}`);
  }
  // Shows that the comparison can fail: another seed must change every value.
  const [options] = Object.values(RUNS);
  const [one, other] = [0, 1].map((seed) =>
    train(head, join(folder, `seed-${seed}`), [...options, "--seed", `${seed}`]),
  );
  if (listDifferences(one, other).length !== 3) throw new Error("another seed left a value unchanged");
  return different;
}

const report = (names) => (names.length === 0 ? "identical" : `different: ${names.join(", ")}`);

const [given] = process.argv.slice(2);
if (given === undefined) {
  console.error("lowrank: usage: npm run compare -- BASE, the folder of another checkout that is built");
  process.exit(2);
}
const head = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "lowrank-compare-"));
try {
  const different = compareRuns(resolve(given), head, folder) + compareKernels(resolve(given), head, folder);
  process.exitCode = different === 0 ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
