import { checkNumberThat } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { type Tensor, wrapHandle } from "../tensor/tensor.js";
import { listParameters } from "./optimizer.js";

/**
 * Scales the gradients of `params` in place so that their joint norm is at most `max`. Returns the norm before, a tensor of one
 * value. As `torch.nn.utils.clip_grad_norm_`. Throws `ERR_OPTION` for values that are not parameters and for a `max` below 0;
 * `ERR_DEVICE_MISMATCH`.
 */
export function clipGradNorm(params: Iterable<Tensor>, max: number): Tensor {
  const all = listParameters("clipGradNorm", params);
  checkNumberThat("clipGradNorm", "max", max, (n) => n >= 0, "a number of at least 0");
  const [first] = all;
  if (first === undefined)
    throw new LowrankError("ERR_OPTION", "clipGradNorm: the list of parameters is empty");
  return wrapHandle(
    session().clipGradNorm(
      first.device,
      all.map((tensor) => tensor.id),
      max,
    ),
  );
}
