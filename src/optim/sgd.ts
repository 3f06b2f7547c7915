import { options } from "../argument.js";
import { Optimizer, type Parameters, type RuleOptions } from "./optimizer.js";

/** The options of `SGD`. */
export interface SGDOptions extends RuleOptions {
  /** The learning rate; 1e-3 unless given. */
  lr: number;
  /** What is kept of the last update; 0 unless given. */
  momentum: number;
  /** What is left out of a gradient that momentum takes in; 0 unless given. */
  dampening: number;
  /** Added to the gradient: weightDecay · p; 0 unless given. */
  weightDecay: number;
  /** Whether the step looks ahead (Nesterov 1983); not unless given. */
  nesterov: boolean;
}

/** Stochastic gradient descent with momentum, as `torch.optim.SGD`. */
export class SGD extends Optimizer<SGDOptions> {
  /** As `AdamW`'s. Throws `ERR_OPTION` for options out of range or unknown, and when there are no parameters. */
  constructor(params: Parameters<SGDOptions>, given?: Partial<SGDOptions>) {
    const known = ["lr", "momentum", "dampening", "weightDecay", "nesterov"] as const;
    const chosen = options("SGD", given, known);
    const { lr = 1e-3, momentum = 0, dampening = 0, weightDecay = 0, nesterov = false } = chosen;
    super("SGD", "sgd", ["momentum_buffer"], params, { lr, momentum, dampening, weightDecay, nesterov });
  }
}
