/** i32 represents whole numbers that round to the same f32. */
import test from "ava";

import { tensor, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";

for (const device of testDevices()) {
  test(`whole numbers are compared exactly, ${device}`, async (t) => {
    const a = tensor(Int32Array.of(16777216, 16777217, -2147483648, 5), { device });
    const b = tensor(Int32Array.of(16777217, 16777216, -2147483647, 5), { device });
    const values = async (x: Tensor) => Array.from(await x.data());
    t.deepEqual(await values(a.eq(b)), [0, 0, 0, 1]);
    t.deepEqual(await values(a.lt(b)), [1, 0, 1, 0]);
    t.deepEqual(await values(a.ge(b)), [0, 1, 0, 1]);
    t.deepEqual(await values(a.eq(16777217)), [0, 1, 0, 0]);
    t.deepEqual(await values(a.gt(16777216)), [0, 1, 0, 0]);
    // A comparison with a fraction, or with a number outside i32, uses f32, as in PyTorch.
    t.deepEqual(await values(a.gt(4.5)), [1, 1, 0, 1]);
    t.deepEqual(await values(a.lt(3e9)), [1, 1, 1, 1]);
    t.deepEqual(await values(a.ne(NaN)), [1, 1, 1, 1]);
  });
}
