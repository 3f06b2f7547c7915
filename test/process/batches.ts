/** Batches of 8 MiB through a layer, in the usual forms of loops, and the resident memory meanwhile. */
import { setTimeout as after } from "node:timers/promises";

import {
  nn,
  ones,
  optim,
  scope,
  synchronize,
  tensor,
  Trainer,
  type Device,
  type Tensor,
} from "../../src/index.js";

const MIB = 2 ** 20;

function resident(): number {
  return process.memoryUsage.rss() / MIB;
}

/** Prints `{ idle, most, end }`. */
export async function batches(device: Device, way: string, count: number): Promise<void> {
  const model = new nn.Linear(8, 1, { device });
  const values = new Float32Array(2 * MIB).fill(1);
  const batch = (): Tensor => tensor(values, { shape: [MIB / 4, 8], device });
  const loss = (x: Tensor): Tensor => model.forward(x).mean();
  // Kernels and pipelines allocate memory that belongs to no batch.
  await scope(() => loss(batch()).item());
  await after(3000);
  const idle = resident();
  let most = idle;
  const look = (): void => {
    most = Math.max(most, resident());
  };
  const ways: Record<string, () => Promise<void>> = {
    async scope() {
      for (let i = 0; i < count; i++, look()) await scope(() => loss(batch()).item());
    },
    async bare() {
      for (let i = 0; i < count; i++, look()) await loss(batch()).item();
    },
    async generator() {
      async function* all(): AsyncGenerator<Tensor> {
        for (let i = 0; i < count; i++) yield batch();
      }
      for await (const x of all()) {
        await loss(x).item();
        look();
      }
    },
    async trainer() {
      const data = function* (): Generator<Tensor> {
        for (let i = 0; i < count; i++) yield batch();
      };
      const optimizer = new optim.AdamW([...model.parameters()]);
      const run = new Trainer({ model, loss: (_, x: Tensor) => loss(x), data, optimizer, epochs: 1 });
      for await (const event of run) if (event.type === "step") look();
      await run.result;
      optimizer.dispose();
    },
    // Never returns to the event loop.
    async synchronous() {
      for (let i = 0; i < count; i++, look()) loss(ones([MIB / 4, 8], { device }));
    },
  };
  await ways[way]?.();
  await synchronize(device);
  look();
  await after(5000);
  console.log(JSON.stringify({ idle, most, end: resident() }));
}
