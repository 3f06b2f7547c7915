/** The range of biases and penalties, which are added to logits. */

/** Large enough to decide a choice, and small enough that its product with a count is a finite f32. */
const LARGEST = 1_000_000;

/** The range, for messages. */
export const SHIFT_RANGE = `from -${LARGEST} to ${LARGEST}`;

export function isShift(value: number): boolean {
  return Math.abs(value) <= LARGEST;
}
