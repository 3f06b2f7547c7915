/** Whether a file's head is the embedding that the configuration ties it to. */
import { noGrad, scope } from "../scope.js";
import { isBlock, type Tensor } from "../tensor.js";

/** Rows that are compared at a time, so that no second vocabulary is held. */
const ROWS = 4096;

/**
 * Whether `given` holds other values than `own`, both [V, C]: where they are stored otherwise, once both are rounded to
 * bf16. They may be on two devices. Of a weight in blocks nothing is known.
 */
export async function isOther(own: Tensor, given: Tensor): Promise<boolean> {
  if (own.shape.join() !== given.shape.join()) return true;
  if (isBlock(own.dtype) || isBlock(given.dtype)) return false;
  const alike = own.dtype === given.dtype;
  const [rows] = own.shape as [number, number];
  for (let from = 0; from < rows; from += ROWS) {
    const to = Math.min(from + ROWS, rows);
    const rounded = (one: Tensor): Tensor => {
      const some = one.slice(0, from, to).to("f32").to("cpu");
      return alike ? some : some.to("bf16").to("f32");
    };
    const largest = noGrad(() => scope(() => rounded(own).sub(rounded(given)).abs().max()));
    const difference = await largest.item();
    largest.dispose();
    // NaN differs from itself: a file that holds any is told of elsewhere.
    if (difference > 0) return true;
  }
  return false;
}
