import { checkNumberThat, checkKnownOptions } from "../arguments/check.js";
import type { Tensor } from "../tensor/tensor.js";
import {
  computeAffine,
  splitState,
  Recurrent,
  RECURRENT_OPTIONS,
  runLayers,
  type Cell,
  type RecurrentOptions,
} from "./recurrent.js";

/** The options of `LSTM`. */
export interface LSTMOptions extends RecurrentOptions {
  /** Features that hidden states are projected to, fewer than H; none by default. */
  projSize?: number | undefined;
}

/** The state between two calls: the last output, and the cell. */
export type LSTMState = readonly [h: Tensor, c: Tensor];

/** i, f, g, o: c ← σ(f)·c + σ(i)·tanh(g), h ← σ(o)·tanh(c). */
const CELL: Cell = {
  project: (x, { weightIh, biasIh, biasHh }) =>
    computeAffine(x, weightIh, biasIh === undefined || biasHh === undefined ? undefined : biasIh.add(biasHh)),
  step: (projected, state, { weightHh, weightHr }) => {
    const [h, c] = state as [Tensor, Tensor];
    const H = c.shape[1] as number;
    const gates = projected.add(computeAffine(h, weightHh, undefined));
    const [i, f, g, o] = gates.split(H, 1) as [Tensor, Tensor, Tensor, Tensor];
    const next = f.sigmoid().mul(c).add(i.sigmoid().mul(g.tanh()));
    const hidden = o.sigmoid().mul(next.tanh());
    return [weightHr === undefined ? hidden : computeAffine(hidden, weightHr, undefined), next];
  },
};

/**
 * Long short-term memory (Hochreiter and Schmidhuber 1997), in layers and directions. As `torch.nn.LSTM`, with its
 * parameter names and its order of gates (i, f, g, o).
 *
 * @example const lstm = new nn.LSTM(16, 32, { numLayers: 2, batchFirst: true }); const [output, [h, c]] =
 * lstm.forward(x); // x [B, T, 16], output [B, T, 32], h and c [2, B, 32]
 */
export class LSTM extends Recurrent {
  /** Features that hidden states are projected to; 0 without a projection. */
  readonly projSize: number;

  /**
   * Creates a layer from `inputSize` features to H = `hiddenSize`. Parameters start as U(±1/√H) and have PyTorch's
   * names: weight_ih_l0 [4H, in], weight_hh_l0 [4H, out], bias_ih_l0, bias_hh_l0, weight_hr_l0 under `projSize`, with
   * the suffix `_reverse` for the second direction. Throws `ERR_OPTION`.
   */
  constructor(inputSize: number, hiddenSize: number, given?: LSTMOptions) {
    const { projSize = 0, ...rest } = checkKnownOptions("LSTM", given, [...RECURRENT_OPTIONS, "projSize"]);
    const fits = (n: number): boolean => Number.isInteger(n) && n >= 0 && (n === 0 || n < hiddenSize);
    checkNumberThat("LSTM", "projSize", projSize, fits, "a whole number below hiddenSize");
    super("LSTM", 4, inputSize, hiddenSize, rest, projSize);
    this.projSize = projSize;
  }

  /**
   * Shapes: x [T, B, in], [B, T, in] under `batchFirst`, or [T, in]; the output likewise, with `projSize` or H
   * features per direction; h [layers · directions, B, out] and c [layers · directions, B, H], without B where x has
   * none. States are zeros by default. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`.
   */
  forward(x: Tensor, state?: LSTMState): [output: Tensor, state: [h: Tensor, c: Tensor]] {
    const sizes = [this.projSize || this.hiddenSize, this.hiddenSize];
    const { output, states } = runLayers("LSTM", this, CELL, x, splitState("LSTM", state, "h, c"), sizes);
    return [output, states as [Tensor, Tensor]];
  }
}
