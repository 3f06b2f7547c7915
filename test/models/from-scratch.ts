/** Models that are trained as they were drawn. */
import { optim, scope, type PretrainedModel, type Tensor } from "../../src/index.js";

/** The losses of four steps of AdamW. */
export async function fourSteps(model: PretrainedModel, lossOf: () => Tensor): Promise<number[]> {
  const optimizer = new optim.AdamW([...model.parameters({ trainable: true })], { lr: 3e-3 });
  const losses: number[] = [];
  for (let step = 0; step < 4; step++) {
    const loss = scope(() => {
      const made = lossOf();
      made.backward();
      return made.detach();
    });
    optimizer.step();
    optimizer.zeroGrad();
    losses.push(await loss.item());
  }
  return losses;
}
