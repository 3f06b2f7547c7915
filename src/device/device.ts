/** Resolves device names, and manages devices' memory. */
import { formatValue } from "../arguments/check.js";
import { takeCompilerWarnings } from "../native/compiler-files.js";
import { LowrankError } from "../errors.js";
import { didYouMean } from "../arguments/suggest.js";
import { native, call, session, unwrapResult, type GpuDetails, type TuneReport } from "../native/binding.js";
import { readAlong } from "../native/reads.js";
import { test, testSync, type Gpu, type Verdict } from "../self-test/first-use.js";

/**
 * The name of a device. `gpu` is the best GPU, `gpu:N` the N-th GPU of `devices()`, `auto` the device that `chooseDevice`
 * selects. Tensors on `meta:cpu` and `meta:gpu` have shapes but no values: memory is counted, and nothing is computed.
 */
export type Device = "auto" | "cpu" | "gpu" | `gpu:${number}` | "meta:cpu" | "meta:gpu";

/** One device of this machine. */
export interface DeviceInfo {
  /** The name in options: `cpu`, `gpu:0`, … */
  device: Exclude<Device, "auto">;
  /** The name of the processor or graphics card. */
  name: string;
  /**
   * The kind of device. `software` is a GPU emulated on the CPU, `integrated` a GPU that shares the system's memory,
   * `virtual` a GPU of a virtual machine.
   */
  kind: "cpu" | "discrete" | "integrated" | "virtual" | "software";
  /** The CPU's instruction set, or the GPU's interface, such as Vulkan or Metal. */
  backend: string;
  /** The driver and its version, if the GPU reports them. */
  driver?: string | undefined;
  /** Memory in bytes, if the system reports it. */
  memory?: number | undefined;
}

/** Memory use of a device; see `memory()`. */
export interface Memory {
  /** Bytes of tensors and scratch buffers in use. */
  live: number;
  /** Bytes in the pool, in use or idle. */
  reserved: number;
  /** The maximum of `reserved` so far. */
  peak: number;
  /** Bytes of mapped files in use. */
  mapped: number;
  /** The number of tensors that have been neither disposed nor garbage-collected. */
  tensors: number;
}

let chosen: Device = "auto";
let automatic: Choice | undefined;
let testing: Promise<void> | undefined;

/** The result of resolving a device name. */
interface Choice {
  device: Exclude<Device, "auto">;
  /** The reason, as part of a sentence. */
  why: string;
}

/** Lists the devices of this machine: the CPU, then the GPUs, best first. */
export function devices(): DeviceInfo[] {
  const found = call(() => native().devices()) as DeviceInfo[];
  for (const text of takeCompilerWarnings(native())) process.emitWarning(text, { type: "LowrankWarning" });
  return found;
}

/**
 * @internal Enumerates drivers on another thread if `device` needs them, which takes about 0.2 s the first time. For
 * `auto`, also tests the GPU that it would select in a separate process, unless that was done before.
 */
export async function findDevices(device: Device = chosen): Promise<void> {
  if (device === "cpu" || device === "meta:cpu" || (device === "auto" && automatic !== undefined)) return;
  unwrapResult(await native().findDevices());
  if (device !== "auto") return;
  testing ??= testInBackground();
  await testing;
}

async function testInBackground(): Promise<void> {
  const verdicts: [Gpu, Verdict][] = [];
  for (const gpu of listCandidates()) {
    const verdict = await test(gpu);
    verdicts.push([gpu, verdict]);
    if (verdict.usable) break;
  }
  automatic ??= chooseAmong(verdicts);
}

/** @internal Returns the driver's information about a GPU; undefined for other devices. */
export function readGpuDetails(device: Device): GpuDetails | undefined {
  const all = call(() => native().gpuDetails());
  const named = device.replace(/^meta:/, "");
  return named === "gpu" ? all.find(({ lacks }) => lacks == null) : all.find((gpu) => gpu.device === named);
}

/** Returns the usable hardware GPUs, best first. A software GPU is slower than the CPU kernels. */
function listCandidates(): Gpu[] {
  const real = devices().filter(({ kind }) => kind !== "cpu" && kind !== "software");
  if (real.length === 0) return [];
  const details = new Map(call(() => native().gpuDetails()).map((gpu) => [gpu.device, gpu]));
  return real.flatMap(({ device, name, backend, driver }) => {
    const { vendor = 0, lacks } = details.get(device) ?? {};
    return lacks == null ? [{ device, name, backend, driver, vendor }] : [];
  });
}

/** Selects the first usable GPU, or the CPU. Warns about each rejected GPU with the reason. */
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
      : { device: "cpu", why: refused.length > 0 ? refused.map(named).join("; ") : explainNoGpu() };
  if (refused.length > 0)
    process.emitWarning(
      `${refused.map(named).join("; ")}. device auto is ${choice.device}; run lowrank doctor for a report, or choose the GPU with device gpu`,
      { type: "LowrankWarning" },
    );
  return choice;
}

function explainNoGpu(): string {
  return devices().some(({ kind }) => kind === "software")
    ? "the only GPU is a software one"
    : "no GPU was found";
}

/**
 * @internal Autotunes a GPU's kernels for common shapes, ignoring earlier results, and stores the fastest variants.
 * Rejects with `ERR_NO_GPU`, and with `ERR_OPTION` for a device that is not a GPU or if `LOWRANK_TUNE` is off.
 */
export async function tuneDevice(device: Exclude<Device, "auto">): Promise<TuneReport> {
  return unwrapResult(await call(() => native().tuneDevice(device)));
}

/** Sets the default device of new tensors, initially `auto`. Throws `ERR_OPTION`. */
export function setDefaultDevice(device: Device): void {
  resolveDevice(device);
  chosen = device;
}

/**
 * Resolves `auto` and returns the reason: a hardware GPU that has passed its self-test (see `diagnose`), otherwise the CPU.
 * A GPU is tested at its first use, which takes some seconds, unless `LOWRANK_SELF_TEST` is `off`; the result is cached by
 * adapter, driver and version of this package. Other devices resolve to themselves. Throws `ERR_OPTION`.
 */
export function chooseDevice(device: Device = chosen): {
  /** The selected device. */
  device: Exclude<Device, "auto">;
  /** The reason, as part of a sentence. */
  why: string;
} {
  if (device !== "auto") return { device: resolveName(device), why: "as asked" };
  if (automatic === undefined) {
    const verdicts: [Gpu, Verdict][] = [];
    for (const gpu of listCandidates()) {
      const verdict = testSync(gpu);
      verdicts.push([gpu, verdict]);
      if (verdict.usable) break;
    }
    automatic = chooseAmong(verdicts);
  }
  return automatic;
}

/** Resolves `device`, or the default device. */
export function resolveDevice(device: Device = chosen): Exclude<Device, "auto"> {
  return chooseDevice(device).device;
}

/** Device names to suggest for a misspelled one. */
const DEVICE_NAMES = ["auto", "cpu", "gpu", "gpu:0", "gpu:1", "meta:cpu", "meta:gpu"];

function resolveName(device: unknown): Exclude<Device, "auto"> {
  if (typeof device !== "string" || !/^(meta:)?(cpu|gpu|gpu:\d+)$/.test(device))
    throw new LowrankError(
      "ERR_OPTION",
      `device: unknown device ${formatValue(device)}${didYouMean(device, DEVICE_NAMES)}; use auto, cpu, gpu, gpu:N, meta:cpu or meta:gpu`,
    );
  return device as Exclude<Device, "auto">;
}

/** Returns this environment's memory use on a device. Throws `ERR_OPTION`, `ERR_NO_GPU`. */
export function memory(device?: Device): Memory {
  return session().memory(resolveDevice(device));
}

/**
 * Releases idle memory to the system: freed buffers that the pool keeps for later tensors. Buffers of unreachable tensors
 * are freed first; other tensors are not affected. This also happens automatically when a run ends and after some idle
 * seconds.
 *
 * Returns the released bytes. Throws `ERR_OPTION` for an unknown device, `ERR_NO_GPU`.
 */
export function trim(device?: Device): number {
  const name = resolveDevice(device);
  // Also collects tensors that V8 has not yet found to be unreachable.
  session().collect(0);
  return session().trim(name);
}

/** Resolves when all work submitted to the device has finished. Rejects with `ERR_DEVICE_LOST` if the device was lost. */
export async function synchronize(device?: Device): Promise<void> {
  const along = readAlong();
  unwrapResult(await session().synchronize(resolveDevice(device)));
  if (along !== undefined) await along;
}
