/** The memory that a run may take. */
import { freemem } from "node:os";

import { devices, type Device } from "../../device/device.js";

/** The share that `auto` leaves free, because tokens, V8's heap and other programs grow too. */
const MARGIN = 1 / 8;

/**
 * Returns the free bytes of the cpu or of a GPU that shares its memory; undefined for other devices. In a control group
 * the free memory of the group counts.
 */
function readFreeMemory(device: Exclude<Device, "auto">): number | undefined {
  if (device !== "cpu") {
    const gpus = devices().filter(({ kind }) => kind !== "cpu");
    const gpu = gpus[device === "gpu" ? 0 : Number(device.slice("gpu:".length))];
    if (gpu?.kind !== "software" && gpu?.kind !== "integrated") return undefined;
  }
  // Electron's older versions lack `availableMemory`.
  const available = process.availableMemory?.() ?? freemem();
  return available > 0 ? available : undefined;
}

/** Returns the bytes that a run may take; undefined if unknown. */
export function measureAllowed(
  memory: number | "auto" | undefined,
  device: Exclude<Device, "auto">,
): number | undefined {
  if (typeof memory === "number") return memory;
  const free = readFreeMemory(device);
  return free === undefined ? undefined : Math.floor(memory === "auto" ? free * (1 - MARGIN) : free);
}
