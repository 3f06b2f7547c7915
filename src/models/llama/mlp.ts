/** The gated MLP of the Llama family. */
import type { Linear } from "../../nn/linear.js";
import { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Weights } from "../weights.js";
import type { LlamaConfig } from "./config.js";

/** down(silu(gate(x)) · up(x)) (Shazeer 2020). */
export class LlamaMLP extends Module {
  /** From C to the inner channels, through SiLU. */
  gate_proj: Linear;
  /** From C to the inner channels. */
  up_proj: Linear;
  /** From the inner channels to C. */
  down_proj: Linear;

  /** @internal */
  constructor(
    {
      hiddenSize: C,
      intermediateSize,
      mlpBias,
    }: Pick<LlamaConfig, "hiddenSize" | "intermediateSize" | "mlpBias">,
    path: string,
    weights: Weights,
  ) {
    super();
    this.gate_proj = weights.linear(`${path}.gate_proj`, C, intermediateSize, mlpBias);
    this.up_proj = weights.linear(`${path}.up_proj`, C, intermediateSize, mlpBias);
    this.down_proj = weights.linear(`${path}.down_proj`, intermediateSize, C, mlpBias);
  }

  /** Maps x [B, T, C] to [B, T, C]. */
  forward(x: Tensor): Tensor {
    const [gate, up] = [this.gate_proj.forward(x), this.up_proj.forward(x)];
    return this.down_proj.forward(gate.siluMul(up));
  }
}
