/** One LoRA training step of ours, timed: the twin of peer_step.py. */
import { tensor } from "../../src/create.js";
import { inject } from "../../src/lora/index.js";
import { AdamW } from "../../src/optim/index.js";
import { scope } from "../../src/scope.js";
import { model as made, race, VOCABULARY } from "./model.js";

const TOKENS = Number(process.argv[2] ?? 512);
const model = made();
await inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
model.train();
const optimizer = new AdamW(
  [...model.parameters()].filter((p) => p.requiresGrad),
  { lr: 2e-4, weightDecay: 0.01 },
);
const ids = Int32Array.from({ length: TOKENS }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 0) % VOCABULARY);

await race(async () => {
  const loss = scope(() => {
    const loss = model.lossSum(tensor(ids, { shape: [1, TOKENS], device: "cpu" }), ids, 1 / (TOKENS - 1));
    loss.backward();
    return loss.detach();
  });
  const norm = optimizer.stepClipped(1);
  optimizer.zeroGrad();
  const value = await loss.item();
  await norm.item();
  loss.dispose();
  norm.dispose();
  return { loss: value };
});
