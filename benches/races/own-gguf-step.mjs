// A first LoRA step (rank 8 on queries and values) with the built package, over a model's file or folder, and its peak memory.
import { readFileSync } from "node:fs";

import { loadModel, lora, optim, scope, tensor } from "../../dist/index.js";

const LENGTH = 512;
const [path, checkpointing] = process.argv.slice(2);
const model = await loadModel(path, { device: "cpu" });
await lora.inject(model, { r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] });
model.gradientCheckpointing = checkpointing === "--checkpointing";
model.train();
const trained = [...model.parameters()].filter((p) => p.requiresGrad);
const optimizer = new optim.AdamW(trained, { lr: 2e-4, weightDecay: 0.01 });
const ids = Int32Array.from(
  { length: LENGTH },
  (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % model.config.vocabSize,
);
const started = performance.now();
let value = 0;
for (let step = 0; step < 3; step++) {
  const loss = scope(() => {
    const input = tensor(ids, { shape: [1, LENGTH], device: "cpu" });
    const loss = model.loss(input, ids);
    loss.backward();
    return loss.detach();
  });
  optimizer.stepClipped(1);
  optimizer.zeroGrad();
  value = await loss.item();
}
const ms = (performance.now() - started) / 3;
const peak = /^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"));
console.log(JSON.stringify({ ms, loss: value, peakMiB: peak === null ? null : Number(peak[1]) / 1024 }));
