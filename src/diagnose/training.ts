/** Trains the embedded model for a few steps, with a low-rank adapter and AdamW. */
import { readFileSync } from "node:fs";
import { tensor } from "../tensor/create.js";
import { inject } from "../lora/index.js";
import type { CausalLM } from "../models/causal-lm.js";
import { locateDefaultData, locateDefaultModel } from "../models/default.js";
import { loadModel } from "../models/files/load.js";
import { AdamW } from "../optim/index.js";
import { manualSeed } from "../tensor/random.js";
import { scope } from "../tensor/scope.js";
import type { CheckedDevice } from "./checks/check.js";

/** Rows and tokens per step; deliberately no multiples of the kernels' tile sizes. */
const BATCH = 3;
const LENGTH = 61;

/**
 * The tolerance of losses, relative to the CPU's. Products, norms and attention differ by at most 2e-5. An update of AdamW
 * has the magnitude of the learning rate for any gradient, so a gradient near 0 with another sign moves its weight the
 * other way. 1e-3 of the loss allows for all of these; five steps change the loss by 14%.
 */
export const LOSS_TOLERANCE = 1e-3;

/**
 * Losses of the embedded model before each of five steps on the CPU: bit-identical on x64 with AVX-512 and AVX2, equal to
 * seven digits with SSE2.
 */
export const STORED_LOSSES: readonly number[] = [
  5.00109338760376, 4.839019298553467, 4.66177225112915, 4.477007865905762, 4.288765907287598,
];

/** Trains for `steps` steps on the same rows. Returns the loss before each step, and the milliseconds of the last step. */
export async function train(
  device: CheckedDevice,
  steps: number,
): Promise<{ losses: number[]; milliseconds: number }> {
  manualSeed(0);
  const model = (await loadModel(locateDefaultModel(), {
    device,
    dtype: "f32",
    onNotice: () => {},
  })) as CausalLM;
  try {
    await inject(model, { r: 8, loraAlpha: 16, targetModules: "all-linear" });
    model.train();
    const text = readFileSync(locateDefaultData(), "utf8").slice(0, 10_000);
    const ids = model.tokenizer?.encode(text).slice(0, BATCH * LENGTH) ?? new Int32Array();
    const batch = tensor(ids, { shape: [BATCH, LENGTH], device });
    const optimizer = new AdamW(model.parameters({ trainable: true }), { lr: 2e-3 });
    const losses: number[] = [];
    let began = performance.now();
    for (let step = 0; step < steps; step++) {
      began = performance.now();
      const loss = await scope(async () => {
        const value = model.loss(batch, batch);
        value.backward();
        optimizer.stepClipped(1);
        optimizer.zeroGrad();
        return value.item();
      });
      losses.push(loss);
    }
    const milliseconds = performance.now() - began;
    optimizer.dispose();
    batch.dispose();
    return { losses, milliseconds };
  } finally {
    model.dispose();
  }
}
