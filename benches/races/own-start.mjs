// From process start to the end of a first LoRA step, with the built package; the counterpart of peer_start.py.
import { readFileSync } from "node:fs";

import { loadModel, lora, optim, scope, tensor } from "../../dist/index.js";

const LENGTH = 512;
const [folder] = process.argv.slice(2);
const model = await loadModel(folder, { device: "cpu" });
await lora.inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
model.train();
const trained = [...model.parameters()].filter((p) => p.requiresGrad);
const optimizer = new optim.AdamW(trained, { lr: 2e-4, weightDecay: 0.01 });
const ids = Int32Array.from(
  { length: LENGTH },
  (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % model.config.vocabSize,
);
const loss = scope(() => {
  const input = tensor(ids, { shape: [1, LENGTH], device: "cpu" });
  const { loss } = model.forward(input, { labels: input });
  loss.backward();
  return loss.detach();
});
optim.clipGradNorm(trained, 1);
optimizer.step();
optimizer.zeroGrad();
const value = await loss.item();
const peak = /^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
console.log(JSON.stringify({ loss: value, peakMiB: peak === null ? null : Number(peak[1]) / 1024 }));
