/** Devices by name, and what they hold. */
import { LowrankError } from "./errors.js";
import { native, call, session, settled } from "./native.js";
import { readAlong } from "./reads.js";

export type Device = "auto" | "cpu" | "gpu" | `gpu:${number}` | "meta:cpu" | "meta:gpu";

/** One device of this machine. */
export interface DeviceInfo {
  /** As options name it: `cpu`, `gpu:0`, … */
  device: Exclude<Device, "auto">;
  name: string;
  kind: "cpu" | "discrete" | "integrated" | "virtual" | "software";
  backend: string;
  driver?: string | undefined;
  /** Bytes, where the system tells. */
  memory?: number | undefined;
}

/** Bytes in use: see `memory()`. */
export interface Memory {
  /** Bytes of tensors and scratch in use. */
  live: number;
  /** What the pool holds. */
  reserved: number;
  /** The highest that `reserved` was. */
  peak: number;
  /** Bytes of mapped files in use. */
  mapped: number;
  /** Handles. */
  tensors: number;
}

let chosen: Device = "auto";
let automatic: { device: Exclude<Device, "auto">; why: string } | undefined;

/** The devices of this machine: the cpu, then the GPUs, best first. */
export function devices(): DeviceInfo[] {
  return call(() => native().devices()) as DeviceInfo[];
}

/**
 * @internal Has the drivers looked for on another thread where `device` needs them: the first time takes a fifth of
 * a second.
 */
export async function findDevices(device: Device = chosen): Promise<void> {
  if (device === "cpu" || device === "meta:cpu" || (device === "auto" && automatic !== undefined)) return;
  settled(await native().findDevices());
}

/** The device of tensors that name none. Starts as `auto`. */
export function setDefaultDevice(device: Device): void {
  resolveDevice(device);
  chosen = device;
}

/**
 * What `auto` stands for: a GPU where there is one in hardware, the cpu elsewhere (a GPU in
 * software is slower than the native kernels), and why.
 */
export function chooseDevice(device: Device = chosen): { device: Exclude<Device, "auto">; why: string } {
  if (device !== "auto") return { device: resolveName(device), why: "as asked" };
  if (automatic === undefined) {
    const gpus = devices().filter((d) => d.kind !== "cpu");
    const real = gpus.find((d) => d.kind !== "software");
    automatic =
      real !== undefined
        ? { device: "gpu", why: `${real.name} (${real.backend})` }
        : { device: "cpu", why: gpus.length > 0 ? "the only GPU is a software one" : "no GPU was found" };
  }
  return automatic;
}

/** The device that `device` (or the default) names. */
export function resolveDevice(device: Device = chosen): Exclude<Device, "auto"> {
  return chooseDevice(device).device;
}

function resolveName(device: string): Exclude<Device, "auto"> {
  if (!/^(cpu|gpu|gpu:\d+|meta:cpu|meta:gpu)$/.test(device)) {
    throw new LowrankError(
      "ERR_OPTION",
      `device: "${device}" is none of auto, cpu, gpu, gpu:N, meta:cpu, meta:gpu`,
    );
  }
  return device as Exclude<Device, "auto">;
}

/** Bytes in use on a device by this environment. */
export function memory(device?: Device): Memory {
  return session().memory(resolveDevice(device));
}

/**
 * Gives idle memory back to the system: buffers that were freed and wait for tensors to come. Tensors keep theirs; those
 * that nothing refers to any more are freed first. It happens by itself when a run ends, and after some seconds without
 * work.
 *
 * Returns bytes given back. Throws `ERR_OPTION` for a device that there is not, `ERR_NO_GPU`.
 */
export function trim(device?: Device): number {
  const name = resolveDevice(device);
  // What V8 has not yet found to be unreachable is given back, too.
  session().collect(0);
  return session().trim(name);
}

/** Settles when all that was asked of the device has run. */
export async function synchronize(device?: Device): Promise<void> {
  const along = readAlong();
  settled(await session().synchronize(resolveDevice(device)));
  if (along !== undefined) await along;
}
