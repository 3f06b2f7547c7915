/** Activations for inputs below 0 and for large ones, with other parameters than the default ones. */
import test from "ava";

import { nn, tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";

for (const device of testDevices()) {
  test(`on ${device}: LeakyReLU takes its slope below 0`, async (t) => {
    const x = tensor([-2, -0.5, 0, 3], { device, requiresGrad: true });
    const y = new nn.LeakyReLU(0.25).forward(x);
    t.deepEqual(
      Array.from(await y.data(), (value) => value + 0),
      [-0.5, -0.125, 0, 3],
    );
    y.sum().backward();
    const slopes = await (x.grad as Tensor).data();
    t.deepEqual([slopes[0], slopes[1], slopes[3]], [0.25, 0.25, 1]);
  });

  test(`on ${device}: ELU's gradient is 1 for large inputs`, async (t) => {
    const x = tensor([1, 100, 1000], { device, requiresGrad: true });
    const y = new nn.ELU(2).forward(x);
    t.deepEqual([...(await y.data())], [1, 100, 1000]);
    y.sum().backward();
    t.deepEqual([...(await (x.grad as Tensor).data())], [1, 1, 1]);
  });
}
