/**
 * Compares the estimates of the runs of test/train/memory-settings.ts with their memory, one line each. For models given as arguments (folders
 * or files), prints only the time of an estimate, which grows with the vocabulary: of the first in a process, and the shortest of later ones.
 *
 *   node --import=tsx --expose-gc benches/estimates.ts [cpu | gpu] [MODEL…]
 */
import {
  estimate,
  finetune,
  memory,
  type Device,
  type Estimate,
  type FinetuneOptions,
} from "../src/index.js";
import { session } from "../src/native/binding.js";
import { runOf, SETTINGS, type Setting } from "../test/train/memory-settings.js";

const device = (process.argv[2] ?? "cpu") as Device;
const MIB = 2 ** 20;

/** An estimate, its time, and the shortest time of repetitions, in milliseconds. */
async function timed(options: FinetuneOptions): Promise<{ told: Estimate; first: number; ms: number }> {
  const times: number[] = [];
  let told: Estimate | undefined;
  for (let n = 0; n < 4; n++) {
    const began = performance.now();
    told = await estimate(options);
    times.push(performance.now() - began);
  }
  const [first = 0, ...others] = times;
  return { told: told as Estimate, first, ms: Math.min(...others) };
}

for (const model of process.argv.slice(3)) {
  const rows = await runOf(SETTINGS[0] as Setting, device);
  const { told, first, ms } = await timed({ ...rows, model });
  const peak = (told.peakBytes / MIB).toFixed(2);
  console.log(`${model}: told ${peak} MiB, ${first.toFixed(0)} ms at first, then ${ms.toFixed(0)} ms`);
}

for (const setting of SETTINGS) {
  const options = await runOf(setting, device);
  const { told, ms } = await timed(options);
  session().restartPeak(device);
  const before = memory(device).reserved;
  await finetune(options).result;
  const held = memory(device).peak - before;
  const off = (100 * (told.peakBytes / held - 1)).toFixed(2);
  const figures = [told.peakBytes, held, told.mapped].map((bytes) => (bytes / MIB).toFixed(2).padStart(8));
  console.log(
    `${setting.name.padEnd(32)} told, held, mapped MiB: ${figures.join(" ")}  ${off.padStart(6)}%  ${ms.toFixed(0)} ms`,
  );
}
