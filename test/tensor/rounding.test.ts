/** Rounding functions of halves and negative numbers. */
import test from "ava";

import { tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";

const INPUTS = [-2.5, -1.5, -1.2, -0.5, 0, 0.5, 1.5, 1.7, 2.5];

const functions: Record<string, [of: (x: Tensor) => Tensor, expected: number[]]> = {
  round: [(x) => x.round(), [-2, -2, -1, 0, 0, 0, 2, 2, 2]],
  floor: [(x) => x.floor(), [-3, -2, -2, -1, 0, 0, 1, 1, 2]],
  ceil: [(x) => x.ceil(), [-2, -1, -1, 0, 0, 1, 2, 2, 3]],
  trunc: [(x) => x.trunc(), [-2, -1, -1, 0, 0, 0, 1, 1, 2]],
  sign: [(x) => x.sign(), [-1, -1, -1, -1, 0, 1, 1, 1, 1]],
};

for (const device of testDevices())
  for (const [name, [of, expected]] of Object.entries(functions))
    test(`on ${device}: ${name} of halves and negative numbers`, async (t) => {
      const values = await of(tensor(INPUTS, { device })).data();
      // Adding 0 makes 0 of −0.
      t.deepEqual(
        Array.from(values, (value) => value + 0),
        expected,
      );
    });
