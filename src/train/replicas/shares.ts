/** The division of a step's rows among devices. */
import { optionName } from "../../arguments/option-name.js";
import type { Batch, BatchPlan } from "../../data/batches.js";
import { LowrankError } from "../../errors.js";
import type { Settings } from "../settings.js";

/** Shares are multiples of this part of the fastest device's, so that noise in a measurement rarely changes them. */
const PARTS = 8;

/**
 * Returns the devices' shares, as whole numbers: their rates relative to the fastest device, in eighths. A device that is
 * more than 16 times slower gets 0.
 */
export function computeShares(rates: readonly number[]): number[] {
  const most = Math.max(...rates);
  return rates.map((rate) => Math.round((PARTS * rate) / most));
}

/**
 * Deals `rows` rows among devices: returns each row's device. The counts follow the shares, rounded by largest remainders
 * (ties to the first device), and each device's rows are spread evenly, so that rows sorted by length give all devices
 * rows of all lengths.
 */
export function dealRows(rows: number, shares: readonly number[]): number[] {
  const counts = apportion(rows, shares);
  const dealt = counts.map(() => 0);
  return Array.from({ length: rows }, (_, row) => {
    let next = -1;
    let furthest = -Infinity;
    for (const [device, count] of counts.entries()) {
      if (dealt[device] === count) continue;
      const behind = (count * (row + 1)) / rows - (dealt[device] as number);
      if (behind > furthest) [next, furthest] = [device, behind];
    }
    dealt[next] = (dealt[next] as number) + 1;
    return next;
  });
}

/** The settings of a run on one of its devices. */
export interface PartSettings extends Settings {
  /** The device's place among the devices of all ranks, rank by rank. */
  part: number;
}

/** Returns the settings on each device of this rank. */
export function listParts(settings: Settings): PartSettings[] {
  const first = findFirstPart(settings);
  return settings.devices.map((device, i) => ({ ...settings, device, part: first + i }));
}

/** Returns the place of this rank's first device among the devices of all ranks. */
export function findFirstPart({ ranks, devices }: Pick<Settings, "ranks" | "devices">): number {
  return ranks === undefined ? 0 : ranks.rank * devices.length;
}

/** Returns the shares of the devices of all ranks, rank by rank. Ranks have equal shares. */
export function listShares({
  ranks,
  devices,
  deviceShares,
}: Pick<Settings, "ranks" | "devices" | "deviceShares">): number[] {
  const weights = deviceShares ?? devices.map(() => 1);
  return Array.from({ length: ranks?.size ?? 1 }, () => weights).flat();
}

/** Returns the rows per batch and the batches per full step on a part's device. */
export function sizeSteps(settings: PartSettings): { batchSize: number; gradientAccumulation: number } {
  const { batchSize, gradientAccumulation, part } = settings;
  const shares = listShares(settings);
  if (shares.length === 1) return { batchSize, gradientAccumulation };
  const rows = apportion(batchSize * gradientAccumulation, shares)[part] as number;
  const size = Math.min(batchSize, rows);
  return { batchSize: size, gradientAccumulation: Math.ceil(rows / size) };
}

/** Returns the micro-batches of a step on a part's device. */
export function listPartBatches(plan: BatchPlan, step: number, settings: PartSettings): Batch[] {
  const shares = listShares(settings);
  if (shares.length === 1) return plan.listBatchesAt(step).batches;
  return plan.divide(step, (rows) => dealRows(rows, shares)).batches[settings.part] ?? [];
}

/** Returns the error for data with too few rows to give the part's device one. */
export function createNoRowsError({ device }: PartSettings): LowrankError {
  const what = `${device} would get no row of any step, because the data has too few rows`;
  return new LowrankError(
    "ERR_OPTION",
    `finetune: ${what}; leave it out, or give it a larger share with ${optionName("deviceShares")}`,
  );
}

/** Divides `rows` in proportion to the shares, by largest remainders; ties go to the first device. */
export function apportion(rows: number, shares: readonly number[]): number[] {
  const total = shares.reduce((sum, share) => sum + share, 0);
  const exact = shares.map((share) => (rows * share) / total);
  const counts = exact.map(Math.floor);
  const rest = rows - counts.reduce((sum, count) => sum + count, 0);
  const order = exact
    .map((value, device) => ({ device, remainder: value - Math.floor(value) }))
    .sort((a, b) => b.remainder - a.remainder || a.device - b.device);
  for (const { device } of order.slice(0, rest)) counts[device] = (counts[device] as number) + 1;
  return counts;
}
