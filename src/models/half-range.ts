/** Half storage holds nothing beyond 65,504: weights that are larger would become infinite. */
import { LowrankError } from "../errors.js";
import { noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** The largest value of f16. */
const LARGEST = 65_504;

/** The largest magnitude in each tensor; Infinity or NaN where it holds one. */
async function largest(tensors: readonly Tensor[]): Promise<ArrayLike<number>> {
  const [first, ...rest] = tensors;
  if (first === undefined) return [];
  const all = noGrad(() =>
    scope(() => {
      const most = (tensor: Tensor): Tensor => tensor.abs().max().to("f32").reshape(1);
      return most(first).concat(rest.map(most));
    }),
  );
  try {
    return await all.data();
  } finally {
    all.dispose();
  }
}

/** A tensor that was stored as f16. */
export interface Halved {
  name: string;
  stored: Tensor;
  /** What it was made of, to be read again; it is disposed of. */
  original: () => Tensor;
}

/**
 * Throws `ERR_DTYPE` where a weight did not fit, naming the tensor and its largest value. `where` is what the message
 * begins with.
 */
export async function checkHalfRange(where: string, halved: readonly Halved[]): Promise<void> {
  // A meta device holds no values.
  if (halved[0]?.stored.device.startsWith("meta") !== false) return;
  const values = await largest(halved.map(({ stored }) => stored));
  const wrong = halved.filter((_, i) => !(Math.abs(values[i] as number) <= LARGEST));
  for (const { name, original } of wrong) {
    const tensor = original();
    const [value = 0] = Array.from(await largest([tensor]));
    tensor.dispose();
    // What was infinite or no number in the file is none of this storage's making.
    if (!Number.isFinite(value)) continue;
    const more = wrong.length > 1 ? ` (and ${wrong.length - 1} more)` : "";
    throw new LowrankError(
      "ERR_DTYPE",
      `${where}: ${name}${more} holds ${value}, and f16 ends at 65,504: store it as bf16 or f32`,
    );
  }
}
