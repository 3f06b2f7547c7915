/** All checks, by order of execution. */
import type { Check } from "./check.js";
import { listOptimizerChecks } from "./optimizers.js";
import { listProductChecks } from "./products.js";
import { listRowChecks } from "./rows.js";
import { listValueChecks } from "./values.js";

/** Makes the checks of the short test, or all of them, with their inputs. */
export function listChecks(quick: boolean): Check[] {
  const all = [...listValueChecks(), ...listRowChecks(), ...listProductChecks(), ...listOptimizerChecks()];
  return quick ? all.filter((check) => check.quick) : all;
}
