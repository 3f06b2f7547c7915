/** How much memory a run may take. */
import { freemem } from "node:os";

import { devices, type Device } from "../../device.js";

/** What `auto` leaves free: tokens, V8's heap and whatever else runs grow, too. */
const MARGIN = 1 / 8;

/**
 * Bytes that a device has free now, as far as the system tells: of the cpu, and of a GPU that shares its memory. What
 * is free in a control group counts where the process is in one.
 */
function freeMemory(device: Exclude<Device, "auto">): number | undefined {
  if (device !== "cpu") {
    const gpus = devices().filter(({ kind }) => kind !== "cpu");
    const gpu = gpus[device === "gpu" ? 0 : Number(device.slice("gpu:".length))];
    if (gpu?.kind !== "software" && gpu?.kind !== "integrated") return undefined;
  }
  // Electron's older processes have none of it.
  const available = process.availableMemory?.() ?? freemem();
  return available > 0 ? available : undefined;
}

/** Bytes that a run may hold; undefined where nothing says. */
export function allowed(
  memory: number | "auto" | undefined,
  device: Exclude<Device, "auto">,
): number | undefined {
  if (typeof memory === "number") return memory;
  const free = freeMemory(device);
  return free === undefined ? undefined : Math.floor(memory === "auto" ? free * (1 - MARGIN) : free);
}
