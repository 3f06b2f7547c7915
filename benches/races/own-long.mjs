// The memory of two LoRA steps on one row of LENGTH tokens with the built package: the prediction of meta:cpu, and the process's memory above its
// idle state.
//
//   node own-long.mjs FOLDER LENGTH
import { readFileSync } from "node:fs";

import { devices, loadModel, lora, memory, optim, scope, tensor } from "../../dist/index.js";

const [folder, length] = [process.argv[2], Number(process.argv[3])];
const MIB = 1 << 20;

function resident(name) {
  const line = new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(readFileSync("/proc/self/status", "utf8"));
  return line === null ? null : Number(line[1]) / 1024;
}

/** Returns the pool's peak and the mapped bytes. */
async function steps(device) {
  const model = await loadModel(folder, { device });
  await lora.inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
  model.train();
  const optimizer = new optim.AdamW(
    [...model.parameters()].filter((p) => p.requiresGrad),
    { lr: 2e-4, weightDecay: 0.01 },
  );
  const ids = Int32Array.from(
    { length },
    (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % model.config.vocabSize,
  );
  for (let step = 0; step < 2; step++) {
    const loss = scope(() => {
      const input = tensor(ids, { shape: [1, length], device });
      const loss = model.loss(input, ids);
      loss.backward();
      return loss.detach();
    });
    optimizer.stepClipped(1).dispose();
    optimizer.zeroGrad();
    if (device === "cpu") await loss.item();
    loss.dispose();
  }
  const { peak, mapped } = memory(device);
  optimizer.dispose();
  model.dispose();
  return { peak: peak / MIB, mapped: mapped / MIB };
}

devices();
await tensor([1], { device: "cpu" }).data();
const foretold = await steps("meta:cpu");
globalThis.gc?.();
const idle = resident("VmRSS");
const start = performance.now();
const took = await steps("cpu");
console.log(
  JSON.stringify({ ms: (performance.now() - start) / 2, idle, peakMiB: resident("VmHWM"), foretold, took }),
);
