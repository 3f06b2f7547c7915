/**
 * The memory of a step as the row grows: the process's peak, and the prediction of meta:cpu.
 *
 *   npx tsx benches/races/long.ts [LENGTH…]      512, 2048 and 8192 by default
 */
import { cold, MODEL } from "./side.js";

interface Memory {
  peak: number;
  mapped: number;
}

const lengths = process.argv.length > 2 ? process.argv.slice(2) : ["512", "2048", "8192"];
const mib = (value: number, width = 7): string => value.toFixed(0).padStart(width);

console.log("LoRA step on one row, f32 (MiB)");
console.log("   tokens  ms a step   idle    peak  above idle  foretold (pool + mapped)  of what was taken");
for (const length of lengths) {
  const turn = await cold(["own-long.mjs", MODEL, length]).turn();
  const { idle, peakMiB, foretold, ms } = turn as unknown as {
    ms: number;
    idle: number;
    peakMiB: number;
    foretold: Memory;
  };
  const [taken, told] = [peakMiB - idle, foretold.peak + foretold.mapped];
  const parts = `${mib(foretold.peak, 0)} + ${mib(foretold.mapped, 0)}`.padStart(18);
  console.log(
    `${length.padStart(9)} ${mib(ms, 10)} ${mib(idle, 6)} ${mib(peakMiB)} ${mib(taken, 11)} ${mib(told)}${parts} ${(told / taken).toFixed(3).padStart(18)}`,
  );
}
