/** A server's memory does not grow with the number of requests. */
import test from "ava";

import { memory } from "../../src/index.js";
import { atRest } from "../at-rest.js";
import { ADAPTERS, BASE, serving } from "./serving.js";

test("after 1,000 sequential requests tensors and the heap are back at their baseline", async (t) => {
  t.timeout(300_000);
  const { post, client, server } = await serving(t);
  const names = [BASE, ...ADAPTERS];
  const ask = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const body = {
        model: names[i % 3],
        prompt: "the whale".slice(0, 1 + (i % 9)),
        max_tokens: 1 + (i % 4),
        seed: i,
      };
      if (i % 50 === 0) {
        // A client that disconnects.
        const stream = await client.completions.create({
          ...body,
          model: BASE,
          max_tokens: 90,
          stream: true,
        });
        for await (const _ of stream) break;
      } else await (await post("/completions", { ...body, stream: i % 2 === 0 })).text();
    }
  };
  const heap = (): number => {
    for (let i = 0; i < 3; i++) globalThis.gc?.();
    return process.memoryUsage().heapUsed;
  };
  await ask(100);
  const { tensors } = await atRest("cpu");
  const [live, before] = [memory("cpu").live, heap()];
  await ask(1000);
  t.deepEqual(server.load, { waiting: 0, running: 0 });
  t.is((await atRest("cpu")).tensors, tensors);
  t.is(memory("cpu").live, live);
  const growth = heap() - before;
  // A leak of a kilobyte for each request would be a megabyte; the client's pool and compiled code take some.
  t.true(growth < 2e6, `the heap grew by ${growth} bytes`);
});
