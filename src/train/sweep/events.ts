/** The events and the result of a sweep. */
import type { HeldMemory } from "../held-memory.js";
import type { DashboardEvent, ProfileEvent, ProgressEvent, TrainEvent, WarningEvent } from "../events.js";

/** The state of a trial. `halted` trials were among the worst of a comparison. */
export type TrialState = "waiting" | "done" | "halted" | "stopped" | "failed";

/** A trial of a sweep, as `sweep.json` and the result contain it. */
export interface TrialSummary {
  /** Its name, `trial-001`. */
  name: string;
  /** Its folder, in the folder of the sweep. */
  folder: string;
  /** Its values of the options in the space, by their paths: `{ "lora.r": 8 }`. */
  values: Readonly<Record<string, unknown>>;
  /** The state of the trial. */
  state: TrialState;
  /** Completed steps. */
  steps: number;
  /** The loss of the last step; null before the first. */
  loss: number | null;
  /** The mean loss of the last ten steps, by which trials without held-out rows are ranked; null before the first step. */
  recentLoss: number | null;
  /** The held-out loss of the adapter; null without held-out rows. */
  evalLoss: number | null;
  /** The held-out losses, by the number of completed steps. */
  evaluations: Readonly<Record<number, number>>;
  /** The losses by which `halving` compared the trial, by the number of completed steps. */
  comparisons: Readonly<Record<number, number>>;
  /** Seconds of training, side by side with the other trials of its group. */
  seconds: number;
  /** The error of a trial that failed. */
  error?: string | undefined;
}

/** Emitted once, before the first group. */
export interface SweepStartEvent {
  /** Identifies the event. */
  type: "sweep";
  /** The folder of the sweep. */
  output: string;
  /** The names of all trials, with their values. */
  trials: Pick<TrialSummary, "name" | "values">[];
  /** The number of trials that an earlier run of the same sweep has finished. */
  finished: number;
  /** The devices, which train different trials. */
  devices: string[];
}

/** Emitted when trials begin that train side by side. */
export interface GroupEvent {
  /** Identifies the event. */
  type: "group";
  /** The names of the trials. */
  trials: string[];
  /** The device that trains them. */
  device: string;
  /** The predicted memory use; the weights are shared. */
  memory: HeldMemory;
  /** The memory limit in bytes; absent if unknown. */
  limit?: number | undefined;
}

/** Emitted when a trial has ended. */
export interface TrialEndEvent extends TrialSummary {
  /** Identifies the event. */
  type: "trial";
}

/** An event of one trial, as `finetune` emits it. */
export type EventOfTrial = Exclude<TrainEvent, DashboardEvent | ProfileEvent | ProgressEvent> & {
  /** The name of the trial. */
  trial: string;
};

/** Emitted once, at the end. */
export interface SweepEndEvent extends SweepResult {
  /** Identifies the event. */
  type: "swept";
  /** Seconds of the whole sweep. */
  seconds: number;
}

/** Any event of a sweep. Events of a trial have its name as `trial`. */
export type SweepEvent =
  SweepStartEvent | GroupEvent | TrialEndEvent | SweepEndEvent | ProgressEvent | WarningEvent | EventOfTrial;

/** The result of a sweep. */
export interface SweepResult {
  /** The folder of the sweep, with a folder for each trial and `sweep.json`. */
  output: string;
  /** The trials, the best first: by held-out loss if there are held-out rows, otherwise by `recentLoss`. */
  trials: TrialSummary[];
  /** Whether the sweep was stopped before all trials had ended. */
  stopped: boolean;
}

const ORDER: Record<TrialState, number> = { done: 0, halted: 1, stopped: 2, waiting: 3, failed: 4 };

/** Returns the loss by which a trial is ranked. */
export function selectRankingLoss({ evalLoss, recentLoss }: TrialSummary): number {
  return evalLoss ?? recentLoss ?? Infinity;
}

/** Returns the trials, the best first: those that ended, then those that were halted, the latest first. */
export function rankTrials(trials: readonly TrialSummary[]): TrialSummary[] {
  return [...trials].sort(
    (a, b) =>
      ORDER[a.state] - ORDER[b.state] ||
      (a.state === "done" ? 0 : b.steps - a.steps) ||
      compare(selectRankingLoss(a), selectRankingLoss(b)) ||
      compare(a.name, b.name),
  );
}

function compare<T extends number | string>(a: T, b: T): number {
  return a < b ? -1 : Number(a > b);
}
