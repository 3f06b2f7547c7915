/** Compares a weight in a file with a model's weight. */
import { noGrad, scope } from "./scope.js";
import { isBlock, type Tensor } from "./tensor.js";

/** The number of rows compared at once, to avoid a second copy of the vocabulary. */
const ROWS = 4096;

/**
 * @internal Returns the largest magnitude of own − given, both rounded to the storage types of both. The tensors have equal
 * shapes and may be on different devices. Returns 0 for block-quantised weights, which cannot be compared.
 */
export async function measureStoredDifference(expected: Tensor, given: Tensor): Promise<number> {
  if (isBlock(expected.dtype) || isBlock(given.dtype)) return 0;
  const [first, second] = [expected.dtype, given.dtype];
  const rows = expected.shape[0] ?? 0;
  let most = 0;
  for (let from = 0; from < rows; from += ROWS) {
    const round = (tensor: Tensor): Tensor =>
      tensor
        .slice(0, from, Math.min(from + ROWS, rows))
        .to("cpu")
        .to(first)
        .to(second)
        .to("f32");
    const largest = noGrad(() => scope(() => round(expected).sub(round(given)).abs().max()));
    most = Math.max(most, await largest.item());
    largest.dispose();
  }
  return most;
}
