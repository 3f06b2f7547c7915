/** Options that a resumed run refuses to change. */
import type { Refusal } from "../../refusals/refusal.js";
import { FIXED_OPTIONS } from "./resuming.js";

export const RESUME_REFUSALS = {
  resumedOptions: {
    what: `other values of ${FIXED_OPTIONS.join(", ")}`,
    where: "when resuming a run (`resume`)",
    reason: "the adapter, the optimizer's state and the position in the data depend on them",
    instead: "leave them out to resume unchanged, or start a new run in another folder",
  },
} as const satisfies Record<string, Refusal>;
