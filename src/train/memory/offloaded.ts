/** The offloaded weights of a run. */
import { formatSize } from "../../arguments/byte-size.js";
import type { Device } from "../../device/device.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { HeldMemory } from "../held-memory.js";
import { readFreeMemory, usesSystemMemory } from "./free.js";

/** @internal Returns the offloaded weights of a model, and the bytes of those that are on its device. */
export function countOffloaded({ offload }: PretrainedModel): {
  resident: number;
  held: Pick<HeldMemory, "offloaded">;
} {
  if (offload === undefined) return { resident: 0, held: {} };
  return { resident: offload.residentBytes, held: { offloaded: offload.bytes } };
}

/** Offloaded weights that do not fit into the system's memory, in bytes. */
export interface HostShortage {
  needed: number;
  free: number;
}

/**
 * Returns the shortage of the system's memory for the offloaded weights of GPUs with separate memory; undefined if
 * they fit or the free memory is unknown. On other devices these weights count with the device's memory.
 */
export function findHostShortage(
  all: readonly { device: Exclude<Device, "auto">; held: Pick<HeldMemory, "offloaded"> }[],
): HostShortage | undefined {
  let needed = 0;
  for (const { device, held } of all) {
    const bytes = held.offloaded?.inMemory ?? 0;
    if (bytes > 0 && !usesSystemMemory(device)) needed += bytes;
  }
  const free = needed > 0 ? readFreeMemory() : undefined;
  return free !== undefined && needed > free ? { needed, free } : undefined;
}

/** Describes a shortage. */
export function formatHostShortage({ needed, free }: HostShortage): string {
  return `would keep ${formatSize(needed)} of offloaded weights in the system's memory, and ${formatSize(free)} are free`;
}
