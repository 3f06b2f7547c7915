/** What a device holds, without what earlier tests have left for V8 to find. */
import { setTimeout as later } from "node:timers/promises";

import { memory, synchronize, type Device, type Memory } from "../src/index.js";
import { session } from "../src/native.js";

/** Counts of `device`, once nothing of them is going to be freed by itself: to be held beside what is counted later. */
export async function atRest(device: Device): Promise<Memory> {
  // An optimizer's state goes in a task after a collection, and its buffers once the device is done with them.
  for (let round = 0; round < 2; round++) {
    globalThis.gc?.();
    session().collect(0);
    await later(1);
  }
  await synchronize(device);
  return memory(device);
}
