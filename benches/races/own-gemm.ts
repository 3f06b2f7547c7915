/** Products of f32 in turns, C = A·Bᵀ; the counterpart of rates/ and of peer_gemm.py. */
import { rand } from "../../src/tensor/create.js";
import { noGrad, scope } from "../../src/tensor/scope.js";
import { race } from "./turns.js";

/** As in the counterparts: a product is repeated until this much arithmetic is done. */
const LEAST = 4e10;
const device = "cpu";

async function rate([m, n, k]: readonly [number, number, number]): Promise<number> {
  return noGrad(() =>
    scope(async () => {
      const [a, b] = [rand([m, k], { device }), rand([n, k], { device })];
      const flops = 2 * m * n * k;
      const times = Math.min(Math.max(Math.ceil(LEAST / flops), 1), 50);
      const product = (): void => scope(() => void a.matmul(b, { transB: true }));
      const wait = async (): Promise<number> => scope(() => a.slice(0, 0, 1).sum()).item();
      product();
      await wait();
      const start = performance.now();
      for (let i = 0; i < times; i++) product();
      await wait();
      return (times * flops) / (performance.now() - start) / 1e6;
    }),
  );
}

await race(async () => {
  const rates: Record<string, number> = {};
  for (const shape of process.argv.slice(2)) {
    rates[`ours ${shape}`] = await rate(shape.split("x").map(Number) as [number, number, number]);
  }
  return { rates };
});
