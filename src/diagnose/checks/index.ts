/** All checks, by order of execution. */
import type { Check } from "./check.js";
import { optimizerChecks } from "./optimizers.js";
import { productChecks } from "./products.js";
import { rowChecks } from "./rows.js";
import { valueChecks } from "./values.js";

/** Makes the checks of the short test, or all of them, with their inputs. */
export function allChecks(quick: boolean): Check[] {
  const all = [...valueChecks(), ...rowChecks(), ...productChecks(), ...optimizerChecks()];
  return quick ? all.filter((check) => check.quick) : all;
}
