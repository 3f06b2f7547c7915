/**
 * Long training: the embedded model on its own text as `finetune` trains it, beside a probe of products between steps.
 *
 *   npx tsx benches/endurance.ts [--steps 2000]
 *
 * Prints live bytes (they must not change), the drift of the resident set, and the time of a step in the last hundred
 * against the first hundred, each divided by the probe's.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { rand } from "../src/create.js";
import { BatchPlan } from "../src/data/batches.js";
import { memory, synchronize } from "../src/device.js";
import { inject } from "../src/lora/index.js";
import { defaultData, defaultModel } from "../src/models/default.js";
import { loadModel } from "../src/models/load.js";
import { AdamW } from "../src/optim/index.js";
import { noGrad, scope } from "../src/scope.js";
import { runLoop } from "../src/train/loop.js";
import { prepare, readFiles } from "../src/train/prepare.js";
import { settingsOf } from "../src/train/settings.js";
import { median } from "./races/median.js";

const { values } = parseArgs({ options: { steps: { type: "string", default: "2000" } } });
const steps = Number(values.steps);
const device = "cpu";
/** Steps between two probes. */
const EVERY = 10;
const HUNDRED = 100;

// As models/default/finetune.yaml has it, at a constant rate.
const settings = settingsOf({
  model: defaultModel,
  data: defaultData,
  device,
  steps,
  batchSize: 4,
  gradientAccumulation: 2,
  maxLength: 256,
  optimizer: { lr: 5e-3 },
});
const files = await readFiles(settings);
const model = await loadModel(defaultModel, { device });
const { objective, train } = await prepare(model, files, settings);
const { batchSize, gradientAccumulation, seed } = settings;
const plan = new BatchPlan(train, {
  batchSize,
  gradientAccumulation,
  seed,
  padTokenId: objective.tokenisation.padTokenId,
  steps,
  epochs: undefined,
});
await inject(model, settings.lora);
model.train();
const optimizer = new AdamW(
  [...model.parameters()].filter((p) => p.requiresGrad),
  settings.optimizer,
);
const square = rand([512, 512], { device });

function residentMiB(): number {
  const line = /^VmRSS:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  return Number(line?.[1] ?? Number.NaN) / 1024;
}

/** Milliseconds of the fastest of some products, while nothing else runs. */
async function probe(): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    const sum = noGrad(() => scope(() => square.matmul(square).sum()));
    await sum.item();
    sum.dispose();
    times.push(performance.now() - start);
  }
  return Math.min(...times);
}

interface Sample {
  /** Steps done. */
  step: number;
  stepMs: number;
  probeMs: number;
  live: number;
  resident: number;
}

const samples: Sample[] = [];
let began = performance.now();

/** Called between steps, when `step` have been recorded. */
async function sample(step: number): Promise<void> {
  await synchronize(device);
  const stepMs = (performance.now() - began) / EVERY;
  const { live } = memory(device);
  const probeMs = await probe();
  if (step > 0) samples.push({ step, stepMs, probeMs, live, resident: residentMiB() });
  began = performance.now();
}

await runLoop({
  device,
  optimizer,
  schedule: () => 1,
  first: 0,
  steps,
  work: async (step) => {
    if (step % EVERY === 0) await sample(step);
    const { batches, tokens, trained } = plan.at(step);
    return {
      losses: batches.map((batch) => () => objective.lossSum(batch, 1 / trained)),
      tokens,
      trained,
    };
  },
  clipNorm: settings.clipNorm,
  evaluate: undefined,
  evalEvery: undefined,
  save: undefined,
  saveEvery: undefined,
  signal: undefined,
  skips: false,
  context: { emit: () => {}, stopping: new AbortController().signal },
});
await sample(steps);

type Figures = Pick<Sample, "stepMs" | "probeMs" | "resident">;

/** Of the hundred steps that end with step `end`. */
function hundred(end: number): Figures {
  const of = samples.filter(({ step }) => step > end - HUNDRED && step <= end);
  const middle = (pick: (sample: Sample) => number): number => median(of.map(pick));
  return {
    stepMs: middle((s) => s.stepMs),
    probeMs: middle((s) => s.probeMs),
    resident: middle((s) => s.resident),
  };
}

function drift(now: number, then: number): string {
  return `${now >= then ? "+" : ""}${(100 * (now / then - 1)).toFixed(2)}%`;
}

const ratio = ({ stepMs, probeMs }: Figures): number => stepMs / probeMs;
const [first, second, last] = [hundred(HUNDRED), hundred(2 * HUNDRED), hundred(steps)];
for (const [name, of] of Object.entries({ first, second, last })) {
  console.log(
    `${name.padEnd(7)}hundred: a step ${of.stepMs.toFixed(2)} ms, the probe ${of.probeMs.toFixed(3)} ms, ` +
      `ratio ${ratio(of).toFixed(2)}, resident ${of.resident.toFixed(1)} MiB`,
  );
}
const lives = samples.map(({ live }) => live);
console.log(`live bytes over ${steps} steps: ${Math.min(...lives)} to ${Math.max(...lives)}`);
// JavaScript's heap grows in the first.
console.log(`resident, last hundred against the second: ${drift(last.resident, second.resident)}`);
console.log(`step / probe, last hundred against the first: ${drift(ratio(last), ratio(first))}`);
