/** Operations on f16 and bf16 compute in f32: the result is bit-identical to the same operation on f32 copies. */
import test from "ava";

import { manualSeed, rand, scope, tensor, type DType, type Tensor } from "../../src/index.js";
import { testDevices } from "../devices.js";

type Operation = (x: Tensor, y: Tensor) => Tensor;

const operations: Record<string, Operation> = {
  softmax: (x) => x.softmax(),
  "softmax of columns": (x) => x.softmax(0),
  logSoftmax: (x) => x.logSoftmax(1),
  dropout: (x) => (manualSeed(7), x.dropout(0.25)),
  "dropout of 0": (x) => x.dropout(0),
  siluMul: (x, y) => x.siluMul(y),
  crossEntropy: (x) => x.crossEntropy(tensor(Int32Array.of(1, 0, 2, 4, 3, 5, 6), { device: x.device })),
  scatterAdd: (x, y) => x.scatterAdd(0, indices(x), y),
  matmul: (x, y) => x.matmul(y.to("f32").transpose()),
  "matmul with one transposed": (x, y) => x.matmul(y, { transA: true }),
  "matmul with both transposed": (x, y) =>
    x.matmul(y.to("f32").reshape([11, 7]).to(y.dtype), { transA: true, transB: true }),
  "matmul with a row": (x, y) => x.matmul(y.slice(0, 2, 3).reshape(11)),
  "matmul of a row": (x, y) => x.slice(0, 2, 3).reshape(11).matmul(y, { transB: true }),
};

function indices(x: Tensor): Tensor {
  const places = Int32Array.from({ length: x.size }, (_, i) => (i * 5) % (x.shape[0] as number));
  return tensor(places, { shape: x.shape, device: x.device });
}

for (const device of testDevices()) {
  for (const dtype of ["f16", "bf16"] as DType[]) {
    test.serial(`on ${device} ${dtype} is computed in f32`, async (t) => {
      await scope(async () => {
        manualSeed(3);
        const [x, y] = [0, 1].map(() => rand([7, 11], { device }).sub(0.5).mul(9).to(dtype)) as [
          Tensor,
          Tensor,
        ];
        for (const [name, operation] of Object.entries(operations)) {
          const expected = operation(x.to("f32"), y.to("f32"));
          for (const [a, b] of [
            [x, y],
            [x, y.to("f32")],
            [x.to("f32"), y],
          ] as const) {
            const given = operation(a, b);
            const what = `${name} of ${a.dtype} and ${b.dtype}`;
            t.is(given.dtype, "f32", what);
            t.deepEqual(given.shape, expected.shape, what);
            t.deepEqual(await given.data(), await expected.data(), what);
          }
        }
      });
    });

    test.serial(`on ${device} gradients pass a factor in ${dtype}`, async (t) => {
      await scope(async () => {
        manualSeed(4);
        const half = rand([5, 6], { device }).sub(0.5).to(dtype);
        const gradient = async (of: (w: Tensor) => Tensor): Promise<Float32Array> => {
          manualSeed(5);
          const w = rand([5, 6], { device, requiresGrad: true });
          of(w).sum().backward();
          return (await w.grad?.data()) as Float32Array;
        };
        for (const of of [
          (h: Tensor) => (w: Tensor) => h.matmul(w, { transA: true }),
          (h: Tensor) => (w: Tensor) => w.matmul(h, { transA: true }),
          (h: Tensor) => (w: Tensor) => h.siluMul(w),
          (h: Tensor) => (w: Tensor) => w.siluMul(h),
          (h: Tensor) => (w: Tensor) => h.scatterAdd(0, indices(h), w),
        ]) {
          t.deepEqual(await gradient(of(half)), await gradient(of(half.to("f32"))), String(of));
        }
      });
    });
  }
}
