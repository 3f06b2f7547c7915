/** Successive halving: after every few steps, the trials with the highest losses are stopped. */
import type { HalvingOptions } from "./options.js";

/** A trial that trains now. */
interface Live {
  /** The last comparison that the trial has reached, by its number of steps. */
  reached: number;
  /** Resolves the wait of the trial, with whether it continues. */
  resolve?: ((continues: boolean) => void) | undefined;
}

/**
 * Compares the trials of a sweep after every `every` steps. Trials that train side by side wait for each other there. Each
 * is also compared with the trials that were there earlier, in other groups; the share `keep` of all of them continues.
 */
export class Halving {
  readonly #options: Required<HalvingOptions>;
  /** The losses at each comparison, by trial. */
  readonly #losses = new Map<number, Map<string, number>>();

  /** `known` are the losses of earlier comparisons of the same sweep. */
  constructor(
    options: Required<HalvingOptions>,
    known: ReadonlyMap<string, Readonly<Record<number, number>>>,
  ) {
    this.#options = options;
    for (const [name, losses] of known)
      for (const [step, loss] of Object.entries(losses)) this.#findLosses(Number(step)).set(name, loss);
  }

  /** Starts a group of trials that wait for each other. */
  group(names: readonly string[]): HalvingGroup {
    return new HalvingGroup(names, this);
  }

  /** Whether trials are compared after this number of completed steps. */
  isDue(step: number): boolean {
    return step > 0 && step % this.#options.every === 0;
  }

  /** Records a loss. Losses that are not finite count as the highest. */
  record(name: string, step: number, loss: number): void {
    this.#findLosses(step).set(name, Number.isFinite(loss) ? loss : Infinity);
  }

  /** Whether a trial is among those that continue. Of equal losses the earlier trial's ranks first. */
  continues(name: string, step: number): boolean {
    const ranked = [...this.#findLosses(step)].sort(([a, x], [b, y]) => (x === y ? (a < b ? -1 : 1) : x - y));
    const count = Math.max(1, Math.ceil(this.#options.keep * ranked.length));
    return ranked.findIndex(([rankedName]) => rankedName === name) < count;
  }

  #findLosses(step: number): Map<string, number> {
    const losses = this.#losses.get(step) ?? new Map<string, number>();
    this.#losses.set(step, losses);
    return losses;
  }
}

/** Trials that train side by side. */
export class HalvingGroup {
  readonly #live: Map<string, Live>;
  readonly #halving: Halving;

  constructor(names: readonly string[], halving: Halving) {
    this.#live = new Map(names.map((name) => [name, { reached: 0 }]));
    this.#halving = halving;
  }

  /** Resolves with whether the trial continues, once all trials of the group have reached `step` or have ended. */
  arrive(name: string, step: number, loss: number): Promise<boolean> {
    this.#halving.record(name, step, loss);
    const live = this.#live.get(name);
    if (live === undefined) return Promise.resolve(true);
    live.reached = step;
    return new Promise((resolve) => {
      live.resolve = resolve;
      this.#decide();
    });
  }

  /** Removes a trial that has ended. */
  leave(name: string): void {
    this.#live.get(name)?.resolve?.(false);
    this.#live.delete(name);
    this.#decide();
  }

  /** Answers the trials that wait where no other trial is still on its way. */
  #decide(): void {
    const waiting = [...this.#live].filter(([, { resolve }]) => resolve !== undefined);
    for (const [name, live] of waiting) {
      const { reached, resolve } = live;
      if ([...this.#live.values()].some((other) => other.reached < reached)) continue;
      live.resolve = undefined;
      resolve?.(this.#halving.continues(name, reached));
    }
  }
}
