/** Log-probabilities of generated tokens. */
import type { Tensor } from "../tensor/tensor.js";

/** A token with its log-probability. */
export interface TokenLogprob {
  /** The id. */
  token: number;
  /** The token's text; empty without a tokenizer. Parts of characters become replacement characters. */
  text: string;
  /** The token in UTF-8; a token can be a part of a character. */
  bytes: Uint8Array;
  /** The natural logarithm of its probability. */
  logprob: number;
}

/** The log-probability of a chosen token, and the most likely tokens at its position, most likely first. */
export interface ChosenLogprobs {
  logprob: number;
  top: readonly Omit<TokenLogprob, "text" | "bytes">[];
}

/** Log-probabilities of one step's tokens, on the device. */
export class Logprobs {
  private constructor(
    private readonly chosen: Tensor,
    private readonly top: { values: Tensor; indices: Tensor } | undefined,
  ) {}

  /**
   * Computes the log-probabilities of tokens i32 [n, 1] from the model's raw logits [n, V], before bias, penalties, temperature
   * and filters, with the `count` most likely tokens of each row. Call it in a scope.
   */
  static compute(logits: Tensor, token: Tensor, count: number): Logprobs {
    const scores = (logits.dtype === "f32" ? logits : logits.to("f32")).logSoftmax(1);
    const most = Math.min(count, scores.shape[1] as number);
    return new Logprobs(scores.gather(1, token), most === 0 ? undefined : scores.topk(most, 1));
  }

  /** Reads one entry per row and frees the tensors. Call it once. */
  async read(): Promise<ChosenLogprobs[]> {
    const reads = [this.chosen, this.top?.values, this.top?.indices].map((tensor) => tensor?.data());
    this.dispose();
    const [chosen = [], values = [], indices = []] = await Promise.all(reads);
    const count = values.length / Math.max(1, chosen.length);
    return Array.from(chosen, (logprob, row) => ({
      logprob,
      top: Array.from({ length: count }, (_, i) => ({
        token: indices[row * count + i] as number,
        logprob: values[row * count + i] as number,
      })),
    }));
  }

  dispose(): void {
    for (const tensor of [this.chosen, this.top?.values, this.top?.indices]) tensor?.dispose();
  }
}
