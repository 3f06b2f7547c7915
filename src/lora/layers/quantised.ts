/** Rejects quantised weights where they are not supported. */
import { QUANTISED_REFUSALS } from "../../refusals/quantised.js";
import { createRefusal, type Refusal } from "../../refusals/refusal.js";
import { isBlock, type Tensor } from "../../tensor/tensor.js";

/** Throws `ERR_DTYPE` if a weight is block-quantised. `path` names the layer in the message. */
export function refuseQuantised(weight: Tensor, refusal: Refusal, path?: string): void {
  if (!isBlock(weight.dtype)) return;
  const found = path === undefined ? weight.dtype : `${path}, ${weight.dtype}`;
  throw createRefusal(refusal, "lora", found, "ERR_DTYPE");
}

/** Throws `ERR_DTYPE` if a difference cannot be added to a weight. */
export function checkMergeable(weight: Tensor): void {
  refuseQuantised(weight, QUANTISED_REFUSALS.merged);
}
