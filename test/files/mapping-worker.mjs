// A separate environment that maps a file: it reports that, and on request the values that it reads.
import { parentPort, workerData } from "node:worker_threads";

import { register } from "tsx/esm/api";

register();
const { safetensors } = await import("../../src/index.ts");
const { w } = await safetensors.load(workerData, { device: "cpu" });
parentPort.once("message", async () => {
  // A thread has no origin.
  // eslint-disable-next-line unicorn/require-post-message-target-origin
  parentPort.postMessage(await w.data());
  w.dispose();
});
// eslint-disable-next-line unicorn/require-post-message-target-origin
parentPort.postMessage("loaded");
