import { Optimizer, type Parameters, type RuleOptions } from "./optimizer.js";

export interface SGDOptions extends RuleOptions {
  lr: number;
  momentum: number;
  dampening: number;
  weightDecay: number;
  nesterov: boolean;
}

/** Stochastic gradient descent with momentum, as `torch.optim.SGD`. */
export class SGD extends Optimizer<SGDOptions> {
  /** Throws `ERR_OPTION` for options out of range, and when there are no parameters. */
  constructor(
    params: Parameters<SGDOptions>,
    { lr = 1e-3, momentum = 0, dampening = 0, weightDecay = 0, nesterov = false }: Partial<SGDOptions> = {},
  ) {
    super("sgd", ["momentum_buffer"], params, { lr, momentum, dampening, weightDecay, nesterov });
  }
}
