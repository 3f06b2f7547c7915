/** The devices of a run: their names, and the shares of several in the rows of a step. */
import { optionName } from "../../arguments/option-name.js";
import {
  type Device,
  devices,
  findDevices,
  memory,
  readGpuDetails,
  resolveDevice,
  synchronize,
} from "../../device/device.js";
import { LowrankError } from "../../errors.js";
import { readMatmulPrecision } from "../../tensor/scope.js";
import { checkModelDevice } from "../device-check.js";
import { measureRate } from "../rate.js";
import type { Settings } from "../settings.js";
import { apportion, computeShares, listShares } from "./shares.js";

/** The product by which devices are compared; the largest products of a language model's layer are of this order. */
const COMPARED = { rows: 512, inner: 1024, outer: 1024 };

/**
 * Checks that a run's devices exist, and returns the settings with their shares.
 *
 * Errors: the errors of `checkModelDevice`, `openDevices` and `settleShares`.
 */
export async function prepareDevices(settings: Settings): Promise<Settings> {
  const prepared = await chooseForRank(settings);
  await checkModelDevice(prepared);
  if (prepared.devices.length > 1) await openDevices(prepared.devices);
  return settleShares(prepared);
}

/**
 * Returns the settings with the device of this rank. Of several GPUs, `auto` and `gpu` select one for each rank of a
 * machine, in turn.
 */
async function chooseForRank(settings: Settings): Promise<Settings> {
  const { ranks, device, devices: named } = settings;
  if (ranks === undefined || named.length > 1 || (device !== "auto" && device !== "gpu")) return settings;
  await findDevices(device);
  // The first use of a GPU by `auto` tests it.
  if (resolveDevice(device) === "cpu") return settings;
  const gpus = devices().filter(({ kind }) => kind !== "cpu");
  const hardware = gpus.filter(({ kind }) => kind !== "software");
  const usable = hardware.length > 0 || device === "auto" ? hardware : gpus;
  const rankDevice = usable[ranks.localRank % usable.length]?.device as Device | undefined;
  return rankDevice === undefined || usable.length === 1
    ? settings
    : { ...settings, device: rankDevice, devices: [rankDevice] };
}

/**
 * Opens several devices. Throws `ERR_NO_GPU`, and `ERR_OPTION` for a device that is named twice, perhaps by two names.
 */
export async function openDevices(devices: readonly Device[]): Promise<void> {
  const named = new Map<string, Device>();
  for (const device of devices) {
    await findDevices(device);
    memory(device);
    const name = readGpuDetails(device)?.device ?? device;
    const other = named.get(name);
    if (other !== undefined) {
      const what = other === device ? `names ${device} twice` : `names one GPU twice: ${other} is ${device}`;
      throw new LowrankError("ERR_OPTION", `${optionName("device")} ${what}; name each device once`);
    }
    named.set(name, device);
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
  const { devices, deviceShares: given, batchSize, gradientAccumulation, ranks } = settings;
  if (devices.length === 1 && ranks === undefined) return settings;
  const rows = batchSize * gradientAccumulation;
  const parts = devices.length * (ranks?.size ?? 1);
  if (rows < parts) {
    const among = ranks === undefined ? `${parts} devices` : describeRanks(ranks.size, devices.length);
    const what = `${rows === 1 ? "the only row" : `the ${rows} rows`} of a step cannot be divided among ${among}`;
    const fewer = ranks === undefined ? "name fewer devices" : "start fewer ranks";
    throw new LowrankError(
      "ERR_OPTION",
      `finetune: ${what}; raise ${optionName("batchSize")} or ${optionName("gradientAccumulation")}, or ${fewer}`,
    );
  }
  if (devices.length === 1) return settings;
  const deviceShares = given ?? computeShares(await measure(settings));
  const idle = apportion(rows, listShares({ ...settings, deviceShares })).indexOf(0) % devices.length;
  if (idle >= 0) {
    const device = devices[idle] as Device;
    const why = given === undefined ? "it is too slow beside the fastest" : "its share is too small";
    throw new LowrankError(
      "ERR_OPTION",
      `finetune: ${device} would get none of the ${rows} rows of a step, because ${why}; leave it out, or give other ${optionName("deviceShares")}`,
    );
  }
  return { ...settings, deviceShares };
}

function describeRanks(ranks: number, devices: number): string {
  return devices === 1 ? `${ranks} ranks` : `${ranks} ranks with ${devices} devices each`;
}

async function measureRates({ devices, dtype, matmulPrecision: precision }: Settings): Promise<number[]> {
  const rates: number[] = [];
  for (const device of devices) {
    const product = { ...COMPARED, dtype: dtype ?? "f32" } as const;
    rates.push(await measureRate(resolveDevice(device), product, precision ?? readMatmulPrecision()));
    await synchronize(device);
  }
  return rates;
}
