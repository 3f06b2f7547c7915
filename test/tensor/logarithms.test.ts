/** Functions with a logarithm are accurate near 0 and for large inputs, where the plain formula is not. */
import test from "ava";

import { tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";

const INPUTS = [-1000, -100, -20, -1e-6, 1e-6, 20, 100, 1000];

const functions: Record<string, [of: (x: Tensor) => Tensor, exact: (x: number) => number, inputs: number[]]> =
  {
    softplus: [(x) => x.softplus(), (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), INPUTS],
    logSigmoid: [(x) => x.logSigmoid(), (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x))), INPUTS],
    log1p: [(x) => x.log1p(), Math.log1p, [-1e-6, -1e-9, 1e-9, 1e-6, 1e30]],
    logsumexp: [(x) => x.reshape(-1, 1).logsumexp(1), (x) => x, INPUTS],
  };

for (const device of testDevices())
  for (const [name, [of, exact, inputs]] of Object.entries(functions))
    test(`on ${device}: ${name} is accurate near 0 and for large inputs`, async (t) => {
      const x = tensor(Float32Array.from(inputs), { device, requiresGrad: true });
      const y = of(x);
      const values = await y.data();
      y.sum().backward();
      const slopes = await (x.grad as Tensor).data();
      for (const [i, input] of inputs.entries()) {
        const expected = exact(Math.fround(input));
        // A few roundings of f32; below its normal numbers, 0 is as near.
        const off = Math.abs((values[i] as number) - expected);
        t.true(
          off <= 1e-6 * Math.abs(expected) + 1e-37,
          `${name}(${input}) is ${values[i]}, not ${expected}`,
        );
        t.true(Number.isFinite(slopes[i]), `the slope at ${input} is ${slopes[i]}`);
      }
    });
