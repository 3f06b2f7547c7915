/** How far a weight of a file is from a model's own. */
import { noGrad, scope } from "./scope.js";
import { isBlock, type Tensor } from "./tensor.js";

/** Rows that are compared at a time, so that no second vocabulary is held. */
const ROWS = 4096;

/**
 * @internal The largest magnitude of own − given, each rounded to the storage of both; they have one shape, and may be on two
 * devices. 0 of weights in blocks, of which nothing is known.
 */
export async function storedDifference(own: Tensor, given: Tensor): Promise<number> {
  if (isBlock(own.dtype) || isBlock(given.dtype)) return 0;
  const [first, second] = [own.dtype, given.dtype];
  const rows = own.shape[0] ?? 0;
  let most = 0;
  for (let from = 0; from < rows; from += ROWS) {
    const rounded = (one: Tensor): Tensor =>
      one
        .slice(0, from, Math.min(from + ROWS, rows))
        .to("cpu")
        .to(first)
        .to(second)
        .to("f32");
    const largest = noGrad(() => scope(() => rounded(own).sub(rounded(given)).abs().max()));
    most = Math.max(most, await largest.item());
    largest.dispose();
  }
  return most;
}
