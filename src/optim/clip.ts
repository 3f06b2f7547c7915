import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { Tensor } from "../tensor.js";

/**
 * Scales the gradients of `params` in place so that their norm together is at most `max`, and returns what it was, a
 * tensor of one value. As `torch.nn.utils.clip_grad_norm_`.
 */
export function clipGradNorm(params: Iterable<Tensor>, max: number): Tensor {
  const all = [...params];
  const [first] = all;
  if (first === undefined)
    throw new LowrankError("ERR_OPTION", "clipGradNorm: the list of parameters is empty");
  return new Tensor(
    session().clipGradNorm(
      first.device,
      all.map((tensor) => tensor.id),
      max,
    ),
  );
}
