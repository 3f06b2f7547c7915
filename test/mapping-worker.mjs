// An environment of its own that has a file mapped: it tells when it has, and what it reads once it is asked.
import { parentPort, workerData } from "node:worker_threads";

import { register } from "tsx/esm/api";

register();
const { safetensors } = await import("../src/index.ts");
const { w } = await safetensors.load(workerData, { device: "cpu" });
parentPort.once("message", async () => {
  // A thread has no origin.
  // eslint-disable-next-line unicorn/require-post-message-target-origin
  parentPort.postMessage(await w.data());
  w.dispose();
});
// eslint-disable-next-line unicorn/require-post-message-target-origin
parentPort.postMessage("loaded");
