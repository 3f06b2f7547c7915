/** Whether what a layer is about to draw fits on its device, asked before a value is made. */
import { resolveDevice, type Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";

/** Throws `ERR_OUT_OF_MEMORY`, naming `what` and what to do, where `elements` of f32 do not fit beside what is in use. */
export function checkRoom(
  what: string,
  device: Device | undefined,
  elements: number,
  advice = "make it smaller, or free what is not needed",
): void {
  try {
    session().checkFits(resolveDevice(device), elements * 4);
  } catch (cause) {
    throw new LowrankError("ERR_OUT_OF_MEMORY", `${what}: ${(cause as Error).message}; ${advice}`, { cause });
  }
}
