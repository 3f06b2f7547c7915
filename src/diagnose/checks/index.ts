/** All checks, in the order that they are run. */
import type { Check } from "../check.js";
import { optimizerChecks } from "./optimizers.js";
import { productChecks } from "./products.js";
import { rowChecks } from "./rows.js";
import { valueChecks } from "./values.js";

/** The checks of the short form, or all of them. Their inputs are made here. */
export function allChecks(quick: boolean): Check[] {
  const all = [...valueChecks(), ...rowChecks(), ...productChecks(), ...optimizerChecks()];
  return quick ? all.filter((check) => check.quick) : all;
}
