// Measures the time that a slow network adds to a step: `node benches/ranks/network.mjs MODEL [TOKENS [STEPS]]`.
//
// This process is one of two ranks, with one thread, and trains rank 16 on all linear layers. The other rank is
// modelled: it has the same gradients, and each sum waits for the time that its bytes take. Prints the median seconds of
// a step without waiting, at 1 Gbit/s and at 100 Mbit/s. `DIST` names another checkout's dist/, to compare with.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";

const dist = process.env.DIST ?? fileURLToPath(new URL("../../dist", import.meta.url));
const { finetune } = await import(pathToFileURL(join(dist, "index.js")));
const [model, tokens = "512", steps = "9"] = process.argv.slice(2);
if (model === undefined) throw new Error("which model?");

const folder = mkdtempSync(join(tmpdir(), "lowrank-network-"));
const text = "The sea is wide and the ship is small, said the captain. ".repeat(400);
const data = Array.from({ length: 64 }, () => ({ text }));

/** Two ranks with the same values, connected at `rate` bytes a second. */
const createRanks = (rate) => ({
  rank: 0,
  size: 2,
  localRank: 0,
  localSize: 2,
  host: "here",
  gather: async (bytes) => [bytes, bytes],
  exchange: async ([part]) => [part, part],
  sum: async (values) => {
    if (rate < Infinity) await wait((1000 * values.byteLength) / rate);
    return values.map((value) => 2 * value);
  },
  abort: (status) => process.exit(status),
  finish: async () => {},
});

/** Returns the median seconds of a step, and the bytes of a rank's gradients. */
async function train(rate) {
  const fixed = { device: "cpu", dtype: "bf16", matmulPrecision: "bf16", threads: 1, saveEvery: 0 };
  const size = { batchSize: 2, gradientAccumulation: 1, maxLength: Number(tokens), steps: Number(steps) };
  const lora = { r: 16, targetModules: "all-linear" };
  const given = { model, data, lora, output: join(folder, "out"), overwrite: true };
  const ended = [];
  let bytes = 0;
  for await (const event of finetune({ ...given, ...fixed, ...size, ranks: createRanks(rate) })) {
    if (event.type === "start") bytes = 4 * event.trainable;
    if (event.type === "step") ended.push(performance.now());
  }
  const gaps = ended.slice(2).map((time, i) => (time - ended[i + 1]) / 1000);
  return { seconds: gaps.toSorted((a, b) => a - b)[Math.floor(gaps.length / 2)], bytes };
}

for (const [name, rate] of [
  ["no waiting", Infinity],
  ["1 Gbit/s", 125e6],
  ["100 Mbit/s", 12.5e6],
]) {
  const { seconds, bytes } = await train(rate);
  console.log(`${name}: ${seconds.toFixed(3)} s a step; sums take ${(bytes / rate).toFixed(3)} s`);
}
rmSync(folder, { recursive: true, force: true });
