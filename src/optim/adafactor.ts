import { checkKnownOptions } from "../arguments/check.js";
import { Optimizer, type Parameters, type RuleOptions, type StateShapes } from "./optimizer.js";

/** The options of `Adafactor`. */
export interface AdafactorOptions extends RuleOptions {
  /**
   * The largest relative step: at update t it is min(lr, 1/√t) times the parameter's root mean square; 1e-2 by default.
   */
  lr: number;
  /** The share of a new gradient at update t is t to the power of this, which is at most 0; −0.8 by default. */
  beta2Decay: number;
  /**
   * The lower bounds of a second moment's root, and of a parameter's root mean square; f32's epsilon and 1e-3 by
   * default.
   */
  eps: readonly [number, number];
  /** The largest root mean square of an update before scaling, at least 1; 1 by default. */
  d: number;
  /** Decoupled: p ← p · (1 − lr · weightDecay); 0 by default. */
  weightDecay: number;
}

/** f32's epsilon, PyTorch's value where the first `eps` is None. */
const EPSILON = 2 ** -23;

/** Matrices have second moments by row and by column; vectors by element. */
const listStateShapes: StateShapes = (shape): ReturnType<StateShapes> => {
  if (shape.length < 2) return { variance: shape };
  return { row_var: [...shape.slice(0, -1), 1], col_var: [...shape.slice(0, -2), 1, ...shape.slice(-1)] };
};

/**
 * Adafactor (Shazeer and Stern 2018), as `torch.optim.Adafactor`; transformers' class of that name chooses the step
 * size differently. The state of an [R, C] matrix has R + C values. Each parameter takes about thirty small launches,
 * so that a step over many small parameters takes longer than AdamW's.
 */
export class Adafactor extends Optimizer<AdafactorOptions> {
  /**
   * Takes parameters as `AdamW` does. Throws `ERR_OPTION` for options out of range or unknown, and without parameters.
   */
  constructor(params: Parameters<AdafactorOptions>, given?: Partial<AdafactorOptions>) {
    const chosen = checkKnownOptions("Adafactor", given, ["lr", "beta2Decay", "eps", "d", "weightDecay"]);
    const { lr = 1e-2, beta2Decay = -0.8, eps = [EPSILON, 1e-3], d = 1, weightDecay = 0 } = chosen;
    super("Adafactor", "adafactor", listStateShapes, params, { lr, beta2Decay, eps, d, weightDecay });
  }
}
