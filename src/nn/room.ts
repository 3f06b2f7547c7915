/** Whether what a layer is about to draw fits on its device, asked before a value is made. */
import { resolveDevice, type Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";

/**
 * Throws `ERR_OUT_OF_MEMORY`, naming `what` and what to do, where `elements` of f32 do not fit beside what is in use.
 * Values are drawn on the host: on the cpu they are there twice for a moment.
 */
export function checkRoom(
  what: string,
  device: Device | undefined,
  elements: number,
  advice = "make it smaller, or free what is not needed",
): void {
  const place = resolveDevice(device);
  try {
    session().checkFits(place, elements * (place === "cpu" ? 8 : 4));
  } catch (cause) {
    throw new LowrankError("ERR_OUT_OF_MEMORY", `${what}: ${(cause as Error).message}; ${advice}`, { cause });
  }
}
