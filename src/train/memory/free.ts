/** The memory that a run may take. */
import { freemem } from "node:os";

import { devices, type Device } from "../../device/device.js";

/** The share that `auto` leaves free, because tokens, V8's heap and other programs grow too. */
const MARGIN = 1 / 8;

/** Whether a device computes in the system's memory: the cpu, and a GPU that shares it. */
export function usesSystemMemory(device: Exclude<Device, "auto">): boolean {
  if (device === "cpu") return true;
  const gpus = devices().filter(({ kind }) => kind !== "cpu");
  const gpu = gpus[device === "gpu" ? 0 : Number(device.slice("gpu:".length))];
  return gpu?.kind === "software" || gpu?.kind === "integrated";
}

/** Returns the free bytes of the system's memory, or of the control group's; undefined if unknown. */
export function readFreeMemory(): number | undefined {
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
  const free = usesSystemMemory(device) ? readFreeMemory() : undefined;
  return free === undefined ? undefined : Math.floor(memory === "auto" ? free * (1 - MARGIN) : free);
}
