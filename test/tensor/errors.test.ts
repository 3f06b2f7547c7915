/** Errors of calls on tensors are thrown at once, and do not affect the device. */
import test from "ava";

import { memory, noGrad, tensor, zeros } from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { testDevices } from "../devices.js";

for (const device of testDevices()) {
  test(`on ${device} a shape error names the operation and both shapes`, (t) => {
    const [a, b] = [zeros([2, 3], { device }), zeros([4, 5], { device })];
    for (const [operation, wrong] of [
      ["matmul", () => a.matmul(b)],
      ["add", () => a.add(b)],
    ] as const) {
      const error = t.throws(wrong, { code: "ERR_SHAPE_MISMATCH" });
      t.regex(error?.message ?? "", new RegExp(`${operation}.*2, 3.*4, 5`));
    }
  });

  test(`on ${device} a disposed tensor cannot be used`, (t) => {
    const a = zeros([2], { device });
    a.dispose();
    t.throws(() => a.add(1), { code: "ERR_DISPOSED" });
  });

  test(`on ${device} backward refuses a value that was changed in place`, (t) => {
    const a = tensor([1, 2], { device, requiresGrad: true });
    const b = tensor([3, 4], { device });
    const loss = a.mul(b).sum();
    noGrad(() => b.copy(tensor([5, 6], { device })));
    t.throws(() => loss.backward(), { code: "ERR_MODIFIED" });
  });

  test.serial(`on ${device} a tensor beyond all memory is refused, and the next one is not`, async (t) => {
    const before = (await atRest(device)).live;
    for (const shape of [
      [2 ** 26, 2 ** 16],
      [2 ** 31, 2 ** 31, 2 ** 31],
    ]) {
      t.throws(() => zeros(shape, { device }), { code: "ERR_OUT_OF_MEMORY" });
    }
    // 8 GiB: a processor has this much memory, but kernels cannot index that many elements.
    t.throws(() => zeros([2 ** 16, 2 ** 16], { device, dtype: "bf16" }), { code: "ERR_OUT_OF_MEMORY" });
    t.is(memory(device).live, before);
    t.deepEqual([...(await tensor([1, 2], { device }).add(1).data())], [2, 3]);
  });
}
