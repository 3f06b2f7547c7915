/** The devices of a run: their names, and the shares of several in the rows of a step. */
import { optionName } from "../../arguments/option-name.js";
import {
  type Device,
  findDevices,
  memory,
  readGpuDetails,
  resolveDevice,
  synchronize,
} from "../../device/device.js";
import { LowrankError } from "../../errors.js";
import { matmulPrecision } from "../../tensor/scope.js";
import { checkModelDevice } from "../device-check.js";
import { measureRate } from "../rate.js";
import type { Settings } from "../settings.js";
import { apportion, computeShares } from "./shares.js";

/** The product by which devices are compared; the largest products of a language model's layer are of this order. */
const COMPARED = { rows: 512, inner: 1024, outer: 1024 };

/**
 * Checks that a run's devices exist, and returns the settings with their shares.
 *
 * Errors: the errors of `checkModelDevice`, `openDevices` and `settleShares`.
 */
export async function prepareDevices(settings: Settings): Promise<Settings> {
  await checkModelDevice(settings);
  if (settings.devices.length > 1) await openDevices(settings.devices);
  return settleShares(settings);
}

/**
 * Opens several devices. Throws `ERR_NO_GPU`, and `ERR_OPTION` for a device that is named twice, perhaps by two names.
 */
export async function openDevices(devices: readonly Device[]): Promise<void> {
  const named = new Map<string, Device>();
  for (const device of devices) {
    await findDevices(device);
    memory(device);
    const own = readGpuDetails(device)?.device ?? device;
    const other = named.get(own);
    if (other !== undefined) {
      const what = other === device ? `names ${device} twice` : `names one GPU twice: ${other} is ${device}`;
      throw new LowrankError("ERR_OPTION", `${optionName("device")} ${what}; name each device once`);
    }
    named.set(own, device);
  }
}

/**
 * Returns the settings with the shares of several devices: the given ones, or their measured rates.
 *
 * Throws `ERR_OPTION` if a device would get no row of a step. `measure` returns the rates of `devices`.
 */
export async function settleShares(
  settings: Settings,
  measure: (settings: Settings) => Promise<number[]> = measureRates,
): Promise<Settings> {
  const { devices, deviceShares: given, batchSize, gradientAccumulation } = settings;
  if (devices.length === 1) return settings;
  const rows = batchSize * gradientAccumulation;
  if (rows < devices.length) {
    const what = `${rows === 1 ? "the only row" : `the ${rows} rows`} of a step cannot be divided among ${devices.length} devices`;
    throw new LowrankError(
      "ERR_OPTION",
      `finetune: ${what}; raise ${optionName("batchSize")} or ${optionName("gradientAccumulation")}, or name fewer devices`,
    );
  }
  const shares = given ?? computeShares(await measure(settings));
  const idle = apportion(rows, shares).indexOf(0);
  if (idle >= 0) {
    const device = devices[idle] as Device;
    const why = given === undefined ? "it is too slow beside the fastest" : "its share is too small";
    throw new LowrankError(
      "ERR_OPTION",
      `finetune: ${device} would get none of the ${rows} rows of a step, because ${why}; leave it out, or give other ${optionName("deviceShares")}`,
    );
  }
  return { ...settings, deviceShares: shares };
}

async function measureRates({ devices, dtype, matmulPrecision: asked }: Settings): Promise<number[]> {
  const rates: number[] = [];
  for (const device of devices) {
    const product = { ...COMPARED, dtype: dtype ?? "f32" } as const;
    rates.push(await measureRate(resolveDevice(device), product, asked ?? matmulPrecision()));
    await synchronize(device);
  }
  return rates;
}
