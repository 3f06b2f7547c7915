/** What a quantised weight cannot take part in. */
import { LowrankError } from "../../errors.js";
import { isBlock, type Tensor } from "../../tensor.js";

/** Throws `ERR_DTYPE` where a weight is in blocks: `what` says what needs its values, and `instead` what to do. */
export function refuseQuantised(weight: Tensor, what: string, instead: string): void {
  if (!isBlock(weight.dtype)) return;
  throw new LowrankError("ERR_DTYPE", `${what}, and this one is quantised (${weight.dtype}); ${instead}`);
}

/** Throws `ERR_DTYPE` where a difference cannot be added to a weight. */
export function checkMergeable(weight: Tensor): void {
  refuseQuantised(
    weight,
    "an adapter is merged into a weight of floats",
    "load the model without quantize, or a GGUF file with a dtype, merge, and quantise what comes of it",
  );
}
