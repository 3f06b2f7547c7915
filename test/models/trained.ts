/** Steps of AdamW over the trained parameters of a model. */
import { optim, scope, type PretrainedModel, type Tensor } from "../../src/index.js";

/** Returns the losses of `steps` steps at the rate `lr`. */
export async function stepLosses(
  model: PretrainedModel,
  lossOf: () => Tensor,
  { steps, lr }: { steps: number; lr: number },
): Promise<number[]> {
  const optimizer = new optim.AdamW([...model.parameters({ trainable: true })], { lr });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const loss = scope(() => {
      const made = lossOf();
      made.backward();
      return made.detach();
    });
    optimizer.step();
    optimizer.zeroGrad();
    losses.push(await loss.item());
    loss.dispose();
  }
  optimizer.dispose();
  return losses;
}
