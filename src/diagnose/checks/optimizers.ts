/** Checks of the optimizers: three steps with clipped gradients. */
import { tensor } from "../../tensor/create.js";
import { session } from "../../native/binding.js";
import { Adafactor, Adam, AdamW, clipGradNorm, Lion, SGD } from "../../optim/index.js";
import { scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { takeLaunches, drawNumbers, type Check, type Outcome, type CheckedDevice } from "./check.js";

interface Rule {
  step: () => void;
  zeroGrad: () => void;
  dispose: () => void;
}

const RULES: readonly [name: string, quick: boolean, make: (params: Tensor[]) => Rule][] = [
  ["AdamW", true, (params) => new AdamW(params, { lr: 0.01, weightDecay: 0.1 })],
  ["Adam", false, (params) => new Adam(params, { lr: 0.01 })],
  ["SGD", false, (params) => new SGD(params, { lr: 0.1, momentum: 0.9, nesterov: true })],
  ["Lion", false, (params) => new Lion(params, { lr: 0.01 })],
  ["Adafactor", false, (params) => new Adafactor(params, { lr: 0.01 })],
];

const SHAPES = [[67, 33], [129]];

export function listOptimizerChecks(): Check[] {
  return RULES.map(([name, quick, make]) => ({
    name: `${name}, three steps`,
    family: "optim",
    quick,
    run: async (device) => scope(async () => trainSteps(device, make)),
  }));
}

async function trainSteps(device: CheckedDevice, make: (params: Tensor[]) => Rule): Promise<Outcome> {
  const parameters = SHAPES.map((shape) =>
    tensor(drawNumbers(shape).values, { shape, device, requiresGrad: true }),
  );
  const rule = make(parameters);
  session().countLaunches(device, true);
  const norms: Tensor[] = [];
  for (let step = 1; step <= 3; step++) {
    rule.zeroGrad();
    // Gradients far from 0, where rounding errors change no signs.
    for (const p of parameters) p.mul(step).add(3).pow(2).sum().backward();
    norms.push(clipGradNorm(parameters, 10));
    rule.step();
  }
  const kernels = takeLaunches(device);
  const values = new Map<string, ArrayLike<number>>();
  for (const [i, p] of parameters.entries()) values.set(`parameter ${i}`, await p.data());
  for (const [i, norm] of norms.entries()) values.set(`norm of step ${i + 1}`, await norm.data());
  rule.dispose();
  return { values, kernels: { forward: kernels, backward: kernels } };
}
