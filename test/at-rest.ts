/** The memory of a device, without the garbage of earlier tests. */
import { setTimeout as later } from "node:timers/promises";

import { memory, synchronize, type Device, type Memory } from "../src/index.js";
import { session } from "../src/native/binding.js";

/** Returns the memory counts of `device` after all garbage is freed, as a baseline for later counts. */
export async function atRest(device: Device): Promise<Memory> {
  // A task after a collection frees an optimizer's state, and its buffers follow once the device is done with them.
  for (let round = 0; round < 2; round++) {
    globalThis.gc?.();
    session().collect(0);
    await later(1);
  }
  await synchronize(device);
  return memory(device);
}
