import { checkKnownOptions } from "../arguments/check.js";
import { Optimizer, type Parameters, type RuleOptions } from "./optimizer.js";

/** The options of `SGD`. */
export interface SGDOptions extends RuleOptions {
  /** The learning rate; 1e-3 by default. */
  lr: number;
  /** The factor of the last update that is kept; 0 by default. */
  momentum: number;
  /** The share of a gradient that momentum ignores; 0 by default. */
  dampening: number;
  /** Added to the gradient: weightDecay · p; 0 by default. */
  weightDecay: number;
  /** Whether the step uses Nesterov's form (Nesterov 1983); false by default. */
  nesterov: boolean;
}

/** Stochastic gradient descent with momentum, as `torch.optim.SGD`. */
export class SGD extends Optimizer<SGDOptions> {
  /**
   * Takes parameters as `AdamW` does. Throws `ERR_OPTION` for options out of range or unknown, and without parameters.
   */
  constructor(params: Parameters<SGDOptions>, given?: Partial<SGDOptions>) {
    const known = ["lr", "momentum", "dampening", "weightDecay", "nesterov"] as const;
    const chosen = checkKnownOptions("SGD", given, known);
    const { lr = 1e-3, momentum = 0, dampening = 0, weightDecay = 0, nesterov = false } = chosen;
    super("SGD", "sgd", ["momentum_buffer"], params, { lr, momentum, dampening, weightDecay, nesterov });
  }
}
