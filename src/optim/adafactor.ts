import { options } from "../argument.js";
import { Optimizer, type Parameters, type RuleOptions, type StateShapes } from "./optimizer.js";

/** The options of `Adafactor`. */
export interface AdafactorOptions extends RuleOptions {
  /** The largest relative step: at update t it is min(lr, 1/√t) times the parameter's root mean square; 1e-2 by default. */
  lr: number;
  /** The share of a new gradient at update t is t to the power of this, which is at most 0; −0.8 by default. */
  beta2Decay: number;
  /** Least root of a second moment, and least root mean square of a parameter; f32's epsilon and 1e-3 by default. */
  eps: readonly [number, number];
  /** Largest root mean square of an update before it is scaled, at least 1; 1 by default. */
  d: number;
  /** Decoupled: p ← p · (1 − lr · weightDecay); 0 by default. */
  weightDecay: number;
}

/** f32's epsilon, which PyTorch takes where the first `eps` is None. */
const EPSILON = 2 ** -23;

/** Second moments of matrices by their rows and columns; of vectors one by one. */
const shapes: StateShapes = (shape): ReturnType<StateShapes> => {
  if (shape.length < 2) return { variance: shape };
  return { row_var: [...shape.slice(0, -1), 1], col_var: [...shape.slice(0, -2), 1, ...shape.slice(-1)] };
};

/**
 * Adafactor (Shazeer and Stern 2018), as `torch.optim.Adafactor` (not transformers' class of that name, whose step size is
 * chosen otherwise). The state of an [R, C] matrix has R + C values. Parameters are updated one by one, in some thirty
 * small launches each, so that a step over many small ones takes longer than AdamW's.
 */
export class Adafactor extends Optimizer<AdafactorOptions> {
  /** As `AdamW`'s. Throws `ERR_OPTION` for options out of range or unknown, and when there are no parameters. */
  constructor(params: Parameters<AdafactorOptions>, given?: Partial<AdafactorOptions>) {
    const chosen = options("Adafactor", given, ["lr", "beta2Decay", "eps", "d", "weightDecay"]);
    const { lr = 1e-2, beta2Decay = -0.8, eps = [EPSILON, 1e-3], d = 1, weightDecay = 0 } = chosen;
    super("Adafactor", "adafactor", shapes, params, { lr, beta2Decay, eps, d, weightDecay });
  }
}
