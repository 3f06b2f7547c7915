import { checkKnownOptions } from "../arguments/check.js";
import type { Tensor } from "../tensor/tensor.js";
import {
  computeAffine,
  Recurrent,
  RECURRENT_OPTIONS,
  runLayers,
  type Cell,
  type RecurrentOptions,
} from "./recurrent.js";

/** r, z, n: n = tanh(x_n + σ(r)·h_n), h ← n + σ(z)·(h − n). */
const CELL: Cell = {
  project: (x, { weightIh, biasIh }) => computeAffine(x, weightIh, biasIh),
  step: (projected, state, { weightHh, biasHh }) => {
    const [h] = state as [Tensor];
    const H = h.shape[1] as number;
    // n's hidden part needs a separate bias, since its product with r includes it.
    const hidden = computeAffine(h, weightHh, biasHh);
    const [inGates, inFresh] = projected.split([2 * H, H], 1) as [Tensor, Tensor];
    const [hiddenGates, hiddenFresh] = hidden.split([2 * H, H], 1) as [Tensor, Tensor];
    const [r, z] = inGates.add(hiddenGates).sigmoid().split(H, 1) as [Tensor, Tensor];
    const candidate = inFresh.add(r.mul(hiddenFresh)).tanh();
    return [candidate.add(z.mul(h.sub(candidate)))];
  },
};

/**
 * Gated recurrent units (Cho et al. 2014), in layers and directions. As `torch.nn.GRU`, with its parameter names and
 * its order of gates (r, z, n).
 */
export class GRU extends Recurrent {
  /**
   * Creates a layer from `inputSize` features to H = `hiddenSize`. Parameters start as U(±1/√H) and have PyTorch's
   * names: weight_ih_l0 [3H, in], weight_hh_l0 [3H, H], bias_ih_l0, bias_hh_l0, with the suffix `_reverse` for the
   * second direction. Throws `ERR_OPTION`.
   */
  constructor(inputSize: number, hiddenSize: number, given?: RecurrentOptions) {
    super("GRU", 3, inputSize, hiddenSize, checkKnownOptions("GRU", given, RECURRENT_OPTIONS));
  }

  /**
   * Shapes: x [T, B, in], [B, T, in] under `batchFirst`, or [T, in]; the output likewise, with H features a
   * direction; h [layers · directions, B, H], without B where x has none. The state is zeros by default. Throws
   * `ERR_OPTION`, `ERR_SHAPE_MISMATCH`.
   */
  forward(x: Tensor, state?: Tensor): [output: Tensor, h: Tensor] {
    const given = state === undefined ? undefined : [state];
    const { output, states } = runLayers("GRU", this, CELL, x, given, [this.hiddenSize]);
    return [output, states[0] as Tensor];
  }
}
