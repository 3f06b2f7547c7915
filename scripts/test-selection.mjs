// The tests that `npm test` leaves out, and those that `npm run test:quick` runs.

/** Files that only `npm test -- --exhaustive` runs: most start many processes, browsers or bundlers. */
export const EXHAUSTIVE = [
  "test/bundlers.test.ts",
  "test/cli/ends.test.ts",
  "test/dashboard/page.test.ts",
  "test/diagnose/auto.test.ts",
  "test/diagnose/diagnose.test.ts",
  "test/docs/pages.test.ts",
  "test/electron/packed.test.ts",
  "test/electron/quits.test.ts",
  "test/examples/installed.test.ts",
  "test/fuzz/fuzz.test.ts",
  "test/installing.test.ts",
  "test/process/process.test.ts",
  "test/recommendations/install.test.ts",
  "test/train/memory.test.ts",
  "test/train/random-runs.test.ts",
  "test/tuning.test.ts",
];

/** The tests of the GPU device that `npm test` runs on a software GPU, by runner. */
export const GPU_SAMPLE = {
  cargo: ["device::gpu", "context::offload", "ops::linear", "ops::attention"],
  ava: ["test/parity/llama.test.ts"],
};

/** The files of `npm run test:quick`. */
export const QUICK = [
  "test/{arguments,chat,inspect,nn,optim,tensor}/*.test.ts",
  "test/lora/{layers,names,inject-options,rows,own-classes}.test.ts",
  "test/parity/{llama,peft-keys}.test.ts",
  "test/train/{finetune,run,trainer}.test.ts",
];
