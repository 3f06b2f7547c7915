/** Devices by name, and what they hold. */
import { shown } from "./argument.js";
import { compilerWarnings } from "./compiler-files.js";
import { LowrankError } from "./errors.js";
import { didYouMean } from "./suggest.js";
import { native, call, session, settled, type GpuDetails, type TuneReport } from "./native.js";
import { readAlong } from "./reads.js";
import { test, testSync, type Gpu, type Verdict } from "./self-test/first-use.js";

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
let automatic: Choice | undefined;
let testing: Promise<void> | undefined;

/** What a device name stands for. */
interface Choice {
  device: Exclude<Device, "auto">;
  /** Why, as a part of a sentence. */
  why: string;
}

/** The devices of this machine: the cpu, then the GPUs, best first. */
export function devices(): DeviceInfo[] {
  const found = call(() => native().devices()) as DeviceInfo[];
  for (const text of compilerWarnings(native())) process.emitWarning(text, { type: "LowrankWarning" });
  return found;
}

/**
 * @internal Looks for drivers on another thread where `device` needs them, which takes a fifth of a second the first time,
 * and tests the GPU that `auto` would use in a process of its own, where that was not done before.
 */
export async function findDevices(device: Device = chosen): Promise<void> {
  if (device === "cpu" || device === "meta:cpu" || (device === "auto" && automatic !== undefined)) return;
  settled(await native().findDevices());
  if (device !== "auto") return;
  testing ??= testedInBackground();
  await testing;
}

async function testedInBackground(): Promise<void> {
  const verdicts: [Gpu, Verdict][] = [];
  for (const gpu of candidates()) {
    const verdict = await test(gpu);
    verdicts.push([gpu, verdict]);
    if (verdict.usable) break;
  }
  automatic ??= chooseAmong(verdicts);
}

/** @internal What the driver tells of a GPU; undefined of another device. */
export function gpuDetails(device: Device): GpuDetails | undefined {
  const all = call(() => native().gpuDetails());
  const named = device.replace(/^meta:/, "");
  return named === "gpu" ? all.find(({ lacks }) => lacks == null) : all.find((one) => one.device === named);
}

/** The usable GPUs in hardware, best first. A GPU in software is slower than the native kernels. */
function candidates(): Gpu[] {
  const real = devices().filter(({ kind }) => kind !== "cpu" && kind !== "software");
  if (real.length === 0) return [];
  const details = new Map(call(() => native().gpuDetails()).map((one) => [one.device, one]));
  return real.flatMap(({ device, name, backend, driver }) => {
    const { vendor = 0, lacks } = details.get(device) ?? {};
    return lacks == null ? [{ device, name, backend, driver, vendor }] : [];
  });
}

/** The first that is usable, or the cpu. Says once which GPU is left out, and why. */
function chooseAmong(verdicts: readonly (readonly [Gpu, Verdict])[]): Choice {
  const refused = verdicts.filter(([, { usable }]) => !usable);
  const found = verdicts.findIndex(([, { usable }]) => usable);
  const named = ([{ name, backend }, { reason }]: readonly [Gpu, Verdict]): string =>
    `${name} (${backend}) did not pass its self-test: ${reason ?? "no reason was given"}`;
  const [gpu] = verdicts[found] ?? [];
  const choice: Choice =
    gpu !== undefined
      ? {
          device: found === 0 ? "gpu" : (gpu.device as Choice["device"]),
          why: `${gpu.name} (${gpu.backend})`,
        }
      : { device: "cpu", why: refused.length > 0 ? refused.map(named).join("; ") : noGpu() };
  if (refused.length > 0)
    process.emitWarning(
      `${refused.map(named).join("; ")}. device auto is ${choice.device}; run lowrank doctor for a report, or choose the GPU with device gpu`,
      { type: "LowrankWarning" },
    );
  return choice;
}

function noGpu(): string {
  return devices().some(({ kind }) => kind === "software")
    ? "the only GPU is a software one"
    : "no GPU was found";
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
 * What `auto` stands for, and why: a GPU in hardware whose kernels have given right numbers (`diagnose` tells of that), the
 * cpu elsewhere. A GPU that was not used before is tested first, for some seconds, unless `LOWRANK_SELF_TEST` is `off`; the
 * result is kept by adapter, driver and version of this package. Another device stands for itself. Throws `ERR_OPTION`.
 */
export function chooseDevice(device: Device = chosen): {
  /** What it stands for. */
  device: Exclude<Device, "auto">;
  /** Why, as a part of a sentence. */
  why: string;
} {
  if (device !== "auto") return { device: resolveName(device), why: "as asked" };
  if (automatic === undefined) {
    const verdicts: [Gpu, Verdict][] = [];
    for (const gpu of candidates()) {
      const verdict = testSync(gpu);
      verdicts.push([gpu, verdict]);
      if (verdict.usable) break;
    }
    automatic = chooseAmong(verdicts);
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
