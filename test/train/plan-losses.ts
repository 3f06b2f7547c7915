/** The losses of a batch plan, without training. */
import type { BatchPlan } from "../../src/data/batches.js";
import { scope } from "../../src/index.js";
import type { Objective } from "../../src/train/objective.js";

/** Returns the loss of each step: the sum over its micro-batches. */
export async function planLosses(objective: Objective, plan: BatchPlan): Promise<number[]> {
  const losses: number[] = [];
  for (let step = 0; step < plan.steps; step++) {
    const { batches, trained } = plan.listBatchesAt(step);
    let sum = 0;
    for (const batch of batches) {
      const loss = scope(() => objective.computeLossSum(batch, 1 / trained));
      sum += await loss.item();
      loss.dispose();
    }
    losses.push(sum);
  }
  return losses;
}
