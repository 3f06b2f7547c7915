// A thread that takes the lock of a folder, and does not respond if it is busy.
import { parentPort, workerData } from "node:worker_threads";

import { register } from "tsx/esm/api";

register();
const { OutputLock } = await import("../../../src/train/output/lock.ts");
await OutputLock.take(workerData.folder);
// eslint-disable-next-line unicorn/require-post-message-target-origin
parentPort.postMessage("taken");
if (workerData.busy) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
else setInterval(() => {}, 1000);
