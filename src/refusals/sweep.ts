/** Unsupported options of `sweep`. */
import type { Refusal } from "./refusal.js";

export const SWEEP_REFUSALS = {
  loadedModel: {
    what: "a model that is loaded",
    where: "in a sweep",
    reason: "a sweep loads the model itself, once for each device",
    instead: "give the model's folder or its name at a hub",
  },
  sharedOption: {
    what: "an option of the model, its data or its storage",
    where: "in the space of a sweep",
    reason: "all adapters of a sweep share one model and its data",
    instead: "run one sweep for each value",
  },
  resumedSweep: {
    what: "`resume`",
    where: "in a sweep",
    reason: "the same sweep in the same folder continues by itself",
    instead: "leave it out",
  },
  watchedSweep: {
    what: "`dashboard` and `profile`",
    where: "in a sweep",
    reason: "they show a single run",
    instead: "leave them out; lowrank runs --dashboard compares the trials of a sweep's folder",
  },
  dividedSweep: {
    what: "`deviceShares`, `ranks` and `deterministic`",
    where: "in a sweep",
    reason: "each adapter trains on one device of one process, and the rows of a step are not divided",
    instead: "leave them out",
  },
} as const satisfies Record<string, Refusal>;
