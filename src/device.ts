/** Devices by name, and what they hold. */
import { shown } from "./argument.js";
import { LowrankError } from "./errors.js";
import { didYouMean } from "./suggest.js";
import { native, call, session, settled, type TuneReport } from "./native.js";
import { readAlong } from "./reads.js";

/**
 * A device as options name it: `gpu` is the best GPU, `gpu:N` the N-th of `devices()`, `auto` what `chooseDevice` finds.
 * On `meta:cpu` and `meta:gpu` tensors have shapes and no values: memory is counted, and nothing runs.
 */
export type Device = "auto" | "cpu" | "gpu" | `gpu:${number}` | "meta:cpu" | "meta:gpu";

/** One device of this machine. */
export interface DeviceInfo {
  /** As options name it: `cpu`, `gpu:0`, … */
  device: Exclude<Device, "auto">;
  /** The processor's or the graphics card's own name. */
  name: string;
  /**
   * What it is; `software` is a GPU that the cpu imitates, `integrated` one that
   * shares the system's memory, `virtual` one of a virtual machine.
   */
  kind: "cpu" | "discrete" | "integrated" | "virtual" | "software";
  /** What it is driven through: the instructions of a cpu, or a GPU's interface, such as Vulkan or Metal. */
  backend: string;
  /** The driver and its version, where a GPU tells. */
  driver?: string | undefined;
  /** Bytes, where the system tells. */
  memory?: number | undefined;
}

/** Bytes in use: see `memory()`. */
export interface Memory {
  /** Bytes of tensors and scratch in use. */
  live: number;
  /** Bytes that the pool holds, in use or idle. */
  reserved: number;
  /** The highest that `reserved` was. */
  peak: number;
  /** Bytes of mapped files in use. */
  mapped: number;
  /** How many tensors of it have neither been disposed nor collected. */
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

/**
 * @internal Tries the forms of a GPU's kernels for usual shapes, whatever was found before, and keeps the fastest. Rejects
 * with `ERR_NO_GPU`, with `ERR_OPTION` for what is no GPU and where `LOWRANK_TUNE` is off.
 */
export async function tuneDevice(device: Exclude<Device, "auto">): Promise<TuneReport> {
  return settled(await call(() => native().tuneDevice(device)));
}

/** Sets the device of tensors that name none, `auto` at first. Throws `ERR_OPTION`. */
export function setDefaultDevice(device: Device): void {
  resolveDevice(device);
  chosen = device;
}

/**
 * What `auto` stands for: a GPU where there is one in hardware, the cpu elsewhere (a GPU in
 * software is slower than the native kernels), and why. Another device stands for itself. Throws `ERR_OPTION`.
 */
export function chooseDevice(device: Device = chosen): {
  /** What it stands for. */
  device: Exclude<Device, "auto">;
  /** Why, as a part of a sentence. */
  why: string;
} {
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

/** Devices by name, as suggestions for a misspelled one. */
const DEVICE_NAMES = ["auto", "cpu", "gpu", "gpu:0", "gpu:1", "meta:cpu", "meta:gpu"];

function resolveName(device: unknown): Exclude<Device, "auto"> {
  if (typeof device !== "string" || !/^(meta:)?(cpu|gpu|gpu:\d+)$/.test(device))
    throw new LowrankError(
      "ERR_OPTION",
      `device: unknown device ${shown(device)}${didYouMean(device, DEVICE_NAMES)}; use auto, cpu, gpu, gpu:N, meta:cpu or meta:gpu`,
    );
  return device as Exclude<Device, "auto">;
}

/** Bytes in use on a device (the default one unless given) by this environment. Throws `ERR_OPTION`, `ERR_NO_GPU`. */
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

/** Settles when all that was asked of the device has run. Rejects with `ERR_DEVICE_LOST` where it was lost by then. */
export async function synchronize(device?: Device): Promise<void> {
  const along = readAlong();
  settled(await session().synchronize(resolveDevice(device)));
  if (along !== undefined) await along;
}
