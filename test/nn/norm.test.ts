/** Norms fused with an addition are bit-identical to a separate sum and norm. */
import test from "ava";

import { nn, scope, tensor, type Device, type Tensor } from "../../src/index.js";
import { Module } from "../../src/nn/module.js";
import { normaliseEnd, normaliseSum } from "../../src/models/stream.js";
import { testDevices } from "../devices.js";

const SHAPE = [3, 5, 40];

type Norm = Module & { forward(x: Tensor): Tensor };

/** A user-defined norm. */
class Halved extends Module {
  forward(x: Tensor): Tensor {
    return x.mul(0.5);
  }
}

/** A subclass of our norm with another forward. */
class Doubled extends nn.RMSNorm {
  override forward(x: Tensor): Tensor {
    return super.forward(x).mul(2);
  }
}

const apart = (norm: Norm, x: Tensor, r: Tensor): [Tensor, Tensor] => {
  const sum = x.add(r);
  return [sum, norm.forward(sum)];
};

/**
 * Returns the sum, the norm, and the gradients of both summands and the weights; with `sumIsRead` the sum has
 * another reader.
 */
async function results(
  device: Device,
  norm: Norm,
  of: typeof apart,
  sumIsRead: boolean,
): Promise<(number[] | null)[]> {
  const [x, r] = [1, 2].map((step) => {
    const values = Float32Array.from({ length: 600 }, (_, i) => Math.sin(i * step));
    return tensor(values, { shape: SHAPE, device, requiresGrad: true });
  }) as [Tensor, Tensor];
  const made = scope(() => {
    const [sum, y] = of(norm, x, r);
    const loss = y.mul(y).sum();
    (sumIsRead ? loss.add(sum.mul(3).sum()) : loss).backward();
    return [sum, y];
  });
  const asked = [x, r, ...norm.parameters()];
  const all = [...made, ...asked.map((one) => one.grad)];
  const values = await Promise.all(
    all.map(async (one) => (one === null ? null : [...((await one.data()) as Float32Array)])),
  );
  for (const one of asked) one.grad = null;
  for (const one of [x, r, ...made]) one.dispose();
  return values;
}

for (const device of testDevices()) {
  const norms: Record<string, Norm> = {
    RMSNorm: new nn.RMSNorm(40, { device }),
    LayerNorm: new nn.LayerNorm(40, { device }),
    "LayerNorm without a bias": new nn.LayerNorm(40, { device, bias: false }),
    "a norm with another forward": new Doubled(40, { device }),
    "another module": new Halved(),
  };
  for (const [name, norm] of Object.entries(norms)) {
    test(`${name} on ${device} after a sum`, async (t) => {
      for (const sumIsRead of [false, true]) {
        const together = await results(
          device,
          norm,
          (n, x, added) => normaliseSum(n, { x, added }),
          sumIsRead,
        );
        t.deepEqual(together, await results(device, norm, apart, sumIsRead));
      }
    });
  }
}

test("the end of a stream releases the tensors that it consumed", (t) => {
  const norm = new nn.RMSNorm(40, { device: "cpu" });
  const [x, added] = [1, 2].map((value) => tensor(new Float32Array(40).fill(value), { device: "cpu" })) as [
    Tensor,
    Tensor,
  ];
  t.deepEqual(normaliseEnd(norm, { x }).shape, [40]);
  t.deepEqual(x.shape, [40], "a sum that was there already stays");
  t.deepEqual(normaliseEnd(norm, { x, added }).shape, [40]);
  t.throws(() => added.mul(2));
});
