/** Gemma's RMSNorm. */
import { session } from "../../native/binding.js";
import { checkInput } from "../../nn/inputs.js";
import { RMSNorm } from "../../nn/norm.js";
import { recordOp, recordOps, type Tensor } from "../../tensor/tensor.js";
import type { Weights } from "../weights.js";

/** y = x / √(mean(x²) + eps) · (1 + w), so that a zero weight means a scale of 1. */
export class Gemma3RMSNorm extends RMSNorm {
  /** Shapes: x and y [..., size]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  override forward(x: Tensor): Tensor {
    checkInput("Gemma3RMSNorm", x);
    const scale = this.weight.add(1);
    return recordOp(() => session().rmsNorm(x.id, scale.id, this.eps));
  }

  /** Returns x + r and its norm in one pass over memory, bit for bit as `add` and `forward` do. */
  override forwardAdded(x: Tensor, r: Tensor): [sum: Tensor, y: Tensor] {
    checkInput("Gemma3RMSNorm", x);
    checkInput("Gemma3RMSNorm", r, "what is added");
    if (this.forward !== Gemma3RMSNorm.prototype.forward) {
      const sum = x.add(r);
      return [sum, this.forward(sum)];
    }
    const scale = this.weight.add(1);
    return recordOps(() => session().addedRmsNorm(x.id, r.id, scale.id, this.eps)) as [Tensor, Tensor];
  }
}

export function takeGemmaNorm(weights: Weights, path: string, size: number, eps: number): Gemma3RMSNorm {
  return new Gemma3RMSNorm(size, { eps, weight: weights.take(`${path}.weight`, [size], "zeros") });
}
