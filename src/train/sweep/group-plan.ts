/** Chooses the trials that train side by side: as many as fit into memory. */
import { formatSize } from "../../arguments/byte-size.js";
import { optionName } from "../../arguments/option-name.js";
import { type Device, resolveDevice } from "../../device/device.js";
import { LowrankError } from "../../errors.js";
import { deleteAdapter, inject } from "../../lora/index.js";
import { runWithRandom } from "../../tensor/random.js";
import type { HeldMemory } from "../held-memory.js";
import { measureAllowed } from "../memory/free.js";
import { findHostShortage, formatHostShortage } from "../memory/offloaded.js";
import { computeNeeded, isShort } from "../memory/plan.js";
import { resolveAdapterOptions } from "../run-parts.js";
import { findReasonApart } from "./apart.js";
import type { SweepBase } from "./base.js";
import { formatValues } from "./format-values.js";
import { countGroup } from "./group-memory.js";
import type { Trial } from "./options.js";

/** The most adapters side by side if the options set no number. */
export const MOST_SIDE_BY_SIDE = 16;

/** Trials that train side by side, and their memory. */
export interface PlannedGroup {
  trials: Trial[];
  memory: HeldMemory;
  limit: number | undefined;
}

/**
 * Checks that each trial's adapter can be added to the model, before any trains, and returns why trials run
 * separately, by the names of the trials. Throws the errors of `inject`, with the values of the trial.
 */
export async function checkTrials(
  base: SweepBase,
  trials: readonly Trial[],
  device: Device,
): Promise<Map<string, string>> {
  const reasons = new Map<string, string>();
  const model = await base.loadMeta(`meta:${resolveDevice(device)}` as Device);
  const objective = base.createObjective(model);
  const checked = new Set<string>();
  try {
    for (const { name, settings, values } of trials) {
      const reason = findReasonApart(model, settings);
      if (reason !== undefined) reasons.set(name, reason);
      const options = resolveAdapterOptions(model, settings, objective);
      const text = JSON.stringify({ ...options, evaData: undefined });
      if (checked.has(text)) continue;
      checked.add(text);
      try {
        await runWithRandom(0, () => inject(model, { ...options, initLoraWeights: true, name }));
      } catch (error) {
        if (!(error instanceof LowrankError)) throw error;
        const message = `${error.message} (in the trial with ${formatValues(values)})`;
        throw new LowrankError(error.code, message, { cause: error });
      }
      deleteAdapter(model, name);
    }
  } finally {
    model.dispose();
  }
  return reasons;
}

/** Plans the groups of one device. */
export class GroupPlanner {
  readonly device: Exclude<Device, "auto">;
  readonly #base: SweepBase;
  readonly #limit: number | undefined;
  readonly #devices: number;
  readonly #sideBySide: number | undefined;
  readonly #halves: boolean;

  /** `devices` is the number of devices that may share the system's memory. */
  constructor(
    base: SweepBase,
    device: Device,
    { sideBySide, devices, halves }: { sideBySide: number | undefined; devices: number; halves: boolean },
  ) {
    this.#halves = halves && sideBySide !== 1;
    this.#base = base;
    this.device = resolveDevice(device);
    this.#sideBySide = sideBySide;
    this.#devices = devices;
    const { memory } = base.settings;
    const limit = measureAllowed(memory, this.device);
    this.#limit = limit === undefined || typeof memory === "number" ? limit : Math.floor(limit / devices);
  }

  /** The most trials of a group. */
  get most(): number {
    return this.#sideBySide ?? MOST_SIDE_BY_SIDE;
  }

  /**
   * Returns the first trials of `wanted` that fit side by side. Throws `ERR_OUT_OF_MEMORY` if a single one does not fit.
   */
  async plan(wanted: readonly Trial[]): Promise<PlannedGroup> {
    let count = wanted.length;
    let alone: number | undefined;
    for (;;) {
      const trials = wanted.slice(0, count);
      const memory = await this.#count(trials);
      if (memory !== undefined) this.#checkHost(memory);
      const needed = memory === undefined ? Infinity : this.#computeNeeded(memory);
      if (memory !== undefined && (this.#limit === undefined || needed <= this.#limit))
        return { trials, memory, limit: this.#limit };
      if (count === 1) throw this.#createTooLargeError(trials[0] as Trial, needed);
      // Memory grows linearly with the number of adapters.
      if (alone === undefined) {
        const single = await this.#count(wanted.slice(0, 1));
        alone = single === undefined ? Infinity : this.#computeNeeded(single);
      }
      const each = (needed - alone) / (count - 1);
      const fitting = Math.floor(1 + ((this.#limit ?? 0) - alone) / each);
      count = Math.max(1, Math.min(count - 1, Number.isFinite(fitting) ? fitting : count >> 1));
    }
  }

  /** Returns the memory of trials; undefined if a tensor exceeds the largest buffer. */
  async #count(trials: readonly Trial[]): Promise<HeldMemory | undefined> {
    return countGroup(this.#base, trials, this.device, { halves: this.#halves }).catch((error: unknown) => {
      if (isShort(error) && trials.length > 1) return undefined;
      throw error;
    });
  }

  /** Throws `ERR_OUT_OF_MEMORY` if the system's memory is too small for the offloaded weights of each device's model. */
  #checkHost(held: HeldMemory): void {
    const models = Array.from({ length: this.#devices }, () => ({ device: this.device, held }));
    const shortage = findHostShortage(models);
    if (shortage === undefined) return;
    throw new LowrankError(
      "ERR_OUT_OF_MEMORY",
      `sweep: the trials ${formatHostShortage(shortage)}; free memory, or give a smaller storage with ${optionName("quantize")}`,
    );
  }

  #computeNeeded(memory: HeldMemory): number {
    return computeNeeded({ ...memory, batch: [0, 0] }, this.#base.settings);
  }

  #createTooLargeError({ name }: Trial, needed: number): LowrankError {
    const may = formatSize(this.#limit ?? 0);
    const bound =
      this.#base.settings.memory === undefined ? `${may} are free` : `${optionName("memory")} is ${may}`;
    return new LowrankError(
      "ERR_OUT_OF_MEMORY",
      `sweep: ${name} alone would need ${formatSize(needed)} on ${this.device}, and ${bound}; give ${optionName("gradientCheckpointing")}, a smaller ${optionName("batchSize")} or a shorter ${optionName("maxLength")}`,
    );
  }
}
