/** Checks, before random values are generated, that a layer fits its device. */
import { resolveDevice, type Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";

/**
 * Throws `ERR_OUT_OF_MEMORY`, with `what` and a remedy, if `elements` of f32 do not fit in addition to the memory in use. Values are
 * generated on the host, so on the CPU they exist twice for a moment.
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
