/** Selects the trained biases. */
import { formatValue } from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { optionName } from "../../arguments/option-name.js";
import { didYouMean } from "../../arguments/suggest.js";

/** Which biases are trained or saved with the low-rank matrices: none, all, or only biases of low-rank layers. */
export type BiasMode = "none" | "all" | "lora_only";

/** Throws `ERR_OPTION` for an unknown mode. */
export function checkBias(bias: string): asserts bias is BiasMode {
  if (bias !== "none" && bias !== "all" && bias !== "lora_only") {
    const near = didYouMean(bias, ["none", "all", "lora_only"]);
    throw new LowrankError(
      "ERR_OPTION",
      `${optionName("bias")}: ${formatValue(bias)} must be one of none, all, lora_only${near}`,
    );
  }
}
