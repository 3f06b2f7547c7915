// A long training run: the embedded model on its own text, as `finetune` trains it, with a probe of matrix products between steps.
//
//   node --import=tsx benches/endurance.mjs [--steps 2000]
//
// Prints live bytes (which must not change), the drift of the resident set, and the step time of the last hundred steps relative to the first
// hundred, each divided by the probe's time.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { rand } from "../src/tensor/create.js";
import { BatchPlan } from "../src/data/batches.js";
import { memory, synchronize } from "../src/device/device.js";
import { inject } from "../src/lora/index.js";
import { locateDefaultData, locateDefaultModel } from "../src/models/default.js";
import { loadModel } from "../src/models/files/load.js";
import { AdamW } from "../src/optim/index.js";
import { noGrad, scope } from "../src/tensor/scope.js";
import { runLoop } from "../src/train/loop.js";
import { prepare, readFiles } from "../src/train/prepare.js";
import { parseSettings } from "../src/train/settings.js";
import { median } from "./races/median.mjs";

const { values } = parseArgs({ options: { steps: { type: "string", default: "2000" } } });
const steps = Number(values.steps);
const device = "cpu";
/** Steps between two probes. */
const EVERY = 10;
const HUNDRED = 100;
/** Rounds of a probe, which take about as long as two steps. */
const ROUNDS = 30;

// The settings of models/default/finetune.yaml, with a constant rate.
const settings = parseSettings({
  model: locateDefaultModel(),
  data: locateDefaultData(),
  device,
  steps,
  batchSize: 4,
  gradientAccumulation: 2,
  maxLength: 256,
  optimizer: { lr: 5e-3 },
});
const files = await readFiles(settings);
const model = await loadModel(locateDefaultModel(), { device });
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
// The probe: the products of the gated layers and lm_head in a forward pass, each on the result of the one before. A single product that fits
// a private cache does not slow down with a step's memory traffic; lm_head's two products alone slow down twice as much.
const { hiddenSize, intermediateSize, vocabSize, numHiddenLayers } = model.config;
const activations = rand([settings.batchSize * settings.maxLength, hiddenSize], { device });
const up = rand([hiddenSize, intermediateSize], { device });
const down = rand([intermediateSize, hiddenSize], { device });
const head = rand([hiddenSize, vocabSize], { device });

function residentMiB() {
  const line = /^VmRSS:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  return Number(line?.[1] ?? Number.NaN) / 1024;
}

/** Milliseconds of the probe: the mean of many, as a step's time is a mean, while nothing else runs. */
async function probe() {
  const start = performance.now();
  for (let round = 0; round < ROUNDS; round++) {
    const product = noGrad(() =>
      scope(() => {
        let x = activations;
        for (let layer = 0; layer < numHiddenLayers; layer++) x = x.matmul(up).matmul(down);
        return x.matmul(head);
      }),
    );
    await synchronize(device);
    product.dispose();
  }
  return (performance.now() - start) / ROUNDS;
}

/** Samples: the steps so far, milliseconds of a step and of the probe, live bytes and resident MiB. */
const samples = [];
let began = performance.now();

/** Called between steps, when `step` steps have been recorded. */
async function sample(step) {
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
    const { batches, tokens, trained } = plan.listBatchesAt(step);
    return {
      losses: batches.map((batch) => () => objective.computeLossSum(batch, 1 / trained)),
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

/** The samples of the hundred steps that end with step `end`. */
function hundred(end) {
  const of = samples.filter(({ step }) => step > end - HUNDRED && step <= end);
  const middle = (pick) => median(of.map(pick));
  return {
    stepMs: middle((s) => s.stepMs),
    probeMs: middle((s) => s.probeMs),
    resident: middle((s) => s.resident),
  };
}

function drift(now, then) {
  return `${now >= then ? "+" : ""}${(100 * (now / then - 1)).toFixed(2)}%`;
}

const ratio = ({ stepMs, probeMs }) => stepMs / probeMs;
const [first, second, last] = [hundred(HUNDRED), hundred(2 * HUNDRED), hundred(steps)];
for (const [name, of] of Object.entries({ first, second, last })) {
  console.log(
    `${name.padEnd(7)}hundred: a step ${of.stepMs.toFixed(2)} ms, the probe ${of.probeMs.toFixed(3)} ms, ` +
      `ratio ${ratio(of).toFixed(2)}, resident ${of.resident.toFixed(1)} MiB`,
  );
}
const lives = samples.map(({ live }) => live);
console.log(`live bytes over ${steps} steps: ${Math.min(...lives)} to ${Math.max(...lives)}`);
// JavaScript's heap grows in the first hundred steps.
console.log(`resident, last hundred against the second: ${drift(last.resident, second.resident)}`);
console.log(`step / probe, last hundred against the first: ${drift(ratio(last), ratio(first))}`);
