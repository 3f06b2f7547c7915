/** Checks that weights fit f16, whose largest value is 65,504: larger ones would become infinite. */
import { LowrankError } from "../errors.js";
import { noGrad, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

/** The largest value of f16. */
const LARGEST = 65_504;

/** Returns the largest magnitude in each tensor; Infinity or NaN where it contains one. */
async function listLargest(tensors: readonly Tensor[]): Promise<ArrayLike<number>> {
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

/** A tensor converted to f16. */
export interface Halved {
  name: string;
  stored: Tensor;
  /** Reads the tensor again before its conversion. */
  original: () => Tensor;
}

/**
 * Throws `ERR_DTYPE` where a weight overflowed in f16, naming the tensor and its largest value. `where` is the prefix
 * of the message.
 */
export async function checkHalfRange(where: string, halved: readonly Halved[]): Promise<void> {
  // A meta device has no values.
  if (halved[0]?.stored.device.startsWith("meta") !== false) return;
  const values = await listLargest(halved.map(({ stored }) => stored));
  const wrong = halved.filter((_, i) => !(Math.abs(values[i] as number) <= LARGEST));
  for (const { name, original } of wrong) {
    const tensor = original();
    const [value = 0] = Array.from(await listLargest([tensor]));
    tensor.dispose();
    // An infinity or NaN that is already in the file is not a result of the conversion.
    if (!Number.isFinite(value)) continue;
    const rest = wrong.length > 1 ? ` (and ${wrong.length - 1} more)` : "";
    throw new LowrankError(
      "ERR_DTYPE",
      `${where}: ${name}${rest} contains ${value}, beyond f16's maximum of 65,504; store it as bf16 or f32`,
    );
  }
}
