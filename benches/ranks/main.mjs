// Measures training on several ranks of this machine, and what a model of the time of a step says about more of them.
// Needs a build, `npm run build:mpi` and `mpirun`: `node benches/ranks/main.mjs`. Options: the launcher, such as
// `--launcher "mpirun -n"`; `--rounds N`; `--ranks 1,2,4`.
//
// 1. Two ranks with one thread each against one process with two threads, in turns: the ratio of their rates.
// 2. The time of a sum of gradients on N ranks: latency and bandwidth by least squares over its sizes.
// 3. The time of a step on N ranks with a fixed number of rows each, against the model: the measured time of one rank's
//    rows, on as many cores as there are, plus the time of the sum.
// 4. The model for clusters, where each rank has a device of its own.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = fileURLToPath(new URL("../..", import.meta.url));
const COMMAND = join(root, "dist", "cli", "main.js");
const SUMS = fileURLToPath(new URL("sums.mjs", import.meta.url));
const CORES = availableParallelism();

const { values } = parseArgs({
  options: {
    launcher: { type: "string", default: "mpirun --oversubscribe --bind-to none -n" },
    rounds: { type: "string", default: "5" },
    ranks: { type: "string", default: "1,2,4,8" },
  },
});
const launcher = values.launcher.split(" ");
const rounds = Number(values.rounds);
const counts = values.ranks.split(",").map(Number);

const folder = mkdtempSync(join(tmpdir(), "lowrank-ranks-"));
const data = join(folder, "rows.jsonl");
const row = JSON.stringify({ text: "The sea is wide and the ship is small, said the captain. ".repeat(40) });
writeFileSync(data, `${row}\n`.repeat(256));

const env = { ...process.env, OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };

function execute(command) {
  const { status, stdout, stderr } = spawnSync(command[0], command.slice(1), { env, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
  return stdout;
}

const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];

/** Trains on `ranks` ranks and returns seconds a step, tokens a second, and the number of trained values. */
function train(ranks, { rows, threads, steps = 8 }) {
  const output = join(folder, "out");
  rmSync(output, { recursive: true, force: true });
  const own = ["finetune", "--data", data, "--batch-size", rows, "--max-length", 256, "--steps", steps];
  const model = join(root, "models", "default");
  const fixed = ["--model", model, "--device", "cpu", "--save-every", 0, "--output", output, "--json"];
  const command = [process.execPath, COMMAND, ...own, ...fixed, "--threads", threads].map(String);
  const events = execute(ranks === 1 ? command : [...launcher, String(ranks), ...command])
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
  const { tokensPerSecond } = events.findLast(({ type }) => type === "step");
  const { trainable } = events.find(({ type }) => type === "start");
  const tokens = rows * 256;
  return { seconds: tokens / tokensPerSecond, tokensPerSecond, trainable };
}

/** Times sums of several sizes on `ranks` ranks; returns pairs of the number of values and the median seconds. */
const timeSums = (ranks) => JSON.parse(execute([...launcher, String(ranks), process.execPath, SUMS]));

/** Latency α and seconds a byte β of t = 2(N − 1)α + 2(N − 1)/N · 4P · β, by least squares with weights 1/t². */
function fit(ranks, times) {
  const rows = times.map(([n, t]) => [(2 * (ranks - 1)) / t, ((2 * (ranks - 1)) / ranks) * ((4 * n) / t)]);
  const sum = (f) => rows.reduce((all, one) => all + f(one), 0);
  const [aa, ab, bb] = [sum(([a]) => a * a), sum(([a, b]) => a * b), sum(([, b]) => b * b)];
  const [ya, yb] = [sum(([a]) => a), sum(([, b]) => b)];
  const determinant = aa * bb - ab * ab;
  return { alpha: (ya * bb - yb * ab) / determinant, beta: (aa * yb - ab * ya) / determinant };
}

const sumSeconds = (ranks, n, { alpha, beta }) =>
  ranks === 1 ? 0 : 2 * (ranks - 1) * alpha + ((2 * (ranks - 1)) / ranks) * 4 * n * beta;

console.log("1. two ranks with one thread each, and one process with two threads: tokens a second");
const ratios = [];
for (let round = 0; round < rounds; round++) {
  const one = train(1, { rows: 8, threads: Math.min(2, CORES) });
  const two = train(2, { rows: 8, threads: 1 });
  ratios.push(two.tokensPerSecond / one.tokensPerSecond);
  console.log(
    `   ${one.tokensPerSecond.toFixed(0)} ${two.tokensPerSecond.toFixed(0)} ${ratios.at(-1).toFixed(3)}`,
  );
}
console.log(`   median ratio ${median(ratios).toFixed(3)}`);

console.log("2. sums of gradients: latency and bandwidth of this machine");
const fits = new Map();
for (const ranks of counts.filter((n) => n > 1)) {
  const fitted = fit(ranks, timeSums(ranks));
  fits.set(ranks, fitted);
  const { alpha, beta } = fitted;
  console.log(
    `   ${ranks} ranks: ${(alpha * 1e6).toFixed(0)} µs a message, ${(1e-9 / beta).toFixed(2)} GB/s a rank`,
  );
}

console.log("3. seconds of a step with 4 rows of 256 tokens a rank: measured, by the model");
const measured = counts.map((ranks) => {
  const runs = Array.from({ length: 3 }, () => train(ranks, { rows: 4 * ranks, threads: 1 }));
  return { ranks, seconds: median(runs.map(({ seconds }) => seconds)), trainable: runs[0].trainable };
});
const [{ seconds: compute, trainable }] = measured;
for (const { ranks, seconds } of measured) {
  const shared = compute * Math.max(1, ranks / CORES);
  const told = shared + sumSeconds(ranks, trainable, fits.get(ranks) ?? { alpha: 0, beta: 0 });
  const bytes = ((2 * (ranks - 1)) / ranks) * 4 * trainable;
  console.log(
    `   ${ranks} ranks: ${seconds.toFixed(3)} s, ${told.toFixed(3)} s (${(seconds / told).toFixed(2)}); ${(bytes / 1e6).toFixed(2)} MB sent a rank`,
  );
}

/**
 * Seconds by which the sums lengthen a step, if each bucket (as in src/train/ranks/run-ranks.ts) is summed while the
 * backward pass of `backward` seconds continues: the sum of the last bucket, and the part of the other sums that is longer than backward.
 */
function exposedSeconds(ranks, n, network, backward) {
  const bucket = Math.min(Math.max(1 << 20, ranks << 17), 16 << 20) / 4;
  const last = sumSeconds(ranks, bucket, network);
  const all = last * Math.ceil(n / bucket);
  return last + Math.max(0, all - last - backward);
}

console.log(
  "4. efficiency by the model: 40 million trained values (rank 16, 7 billion weights), 2 s of computing a step, 1 s of it backward",
);
for (const [name, network] of [
  ["10 Gbit/s, 20 µs", { alpha: 20e-6, beta: 1 / 1.25e9 }],
  ["100 Gbit/s, 3 µs", { alpha: 3e-6, beta: 1 / 12.5e9 }],
]) {
  const told = [16, 64, 256, 1000].map((ranks) => {
    const [after, during] = [sumSeconds(ranks, 40e6, network), exposedSeconds(ranks, 40e6, network, 1)];
    const [without, efficiency] = [after, during].map((seconds) => `${(200 / (2 + seconds)).toFixed(1)}%`);
    return `${ranks} ranks ${efficiency} (${without} with sums after backward)`;
  });
  console.log(`   ${name}: ${told.join(", ")}`);
}
rmSync(folder, { recursive: true, force: true });
