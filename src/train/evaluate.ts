import { tensor } from "../create.js";
import { batchesInOrder } from "../data/batches.js";
import type { Example } from "../data/examples.js";
import { throwIfAborted } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import { noGrad, scope } from "../scope.js";

export interface Evaluation {
  /** The mean over all tokens that count, whatever row they are in. */
  loss: number;
  perplexity: number;
  tokens: number;
}

/** The loss of a model over examples, without dropout and without gradients. */
export async function evaluate(
  model: CausalLM,
  examples: readonly Example[],
  options: { batchSize: number; padTokenId: number; signal?: AbortSignal | undefined },
): Promise<Evaluation> {
  const training = model.training;
  model.eval();
  let sum = 0;
  let tokens = 0;
  try {
    for (const batch of batchesInOrder(examples, options.batchSize, options.padTokenId)) {
      throwIfAborted(options.signal);
      const loss = noGrad(() =>
        scope(() => {
          const ids = tensor(batch.ids, { shape: batch.shape, device: model.device });
          return model.lossSum(ids, batch.labels, 1);
        }),
      );
      try {
        sum += await loss.item();
      } finally {
        loss.dispose();
      }
      tokens += batch.trained;
    }
  } finally {
    model.train(training);
  }
  return { loss: sum / tokens, perplexity: Math.exp(sum / tokens), tokens };
}
