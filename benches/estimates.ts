/**
 * What `estimate` tells of the runs of test/train/memory-settings.ts, and what they then hold: a line each.
 *
 *   node --import=tsx --expose-gc benches/estimates.ts [cpu | gpu]
 */
import { estimate, finetune, memory, type Device } from "../src/index.js";
import { session } from "../src/native.js";
import { runOf, SETTINGS } from "../test/train/memory-settings.js";

const device = (process.argv[2] ?? "cpu") as Device;
const MIB = 2 ** 20;

for (const setting of SETTINGS) {
  const options = await runOf(setting, device);
  let [told, ms] = [await estimate(options), Infinity];
  for (let n = 0; n < 3; n++) {
    const began = performance.now();
    told = await estimate(options);
    ms = Math.min(ms, performance.now() - began);
  }
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
