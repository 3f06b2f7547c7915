/** Ways to start an adapter. */
import { shown } from "../../argument.js";
import { LowrankError } from "../../errors.js";
import { optionName } from "../../option-name.js";
import { didYouMean } from "../../suggest.js";

/**
 * - `true`: A as U(±1/√in), B zero; loralib's.
 * - `false`: both drawn, so that a fresh adapter is not the base; for tests.
 * - `gaussian`: A as N(0, 1/r²), B zero.
 * - `orthogonal`: rows of A and B at right angles, whose product is zero; r is even.
 * - `pissa`: the strongest directions of the weight itself (Meng et al. 2024); `pissa_niter_N` finds
 *   them on a random subspace in N rounds.
 * - `olora`: the first directions of its QR (Büyükakyüz 2024).
 * - `eva`: A is the strongest directions of the layer's inputs on `evaData`, and ranks go where
 *   they explain most (Paischer et al. 2024); B zero.
 */
export type InitLoraWeights =
  boolean | "gaussian" | "orthogonal" | "pissa" | `pissa_niter_${number}` | "olora" | "eva";

const NAMED = ["gaussian", "orthogonal", "pissa", "olora", "eva"];
/** PEFT's, which are not built. */
const BEYOND = ["loftq", "corda", "lora_ga", "mica"];

/** The rounds of `pissa_niter_N`; undefined for anything else. */
export function roundsOf(init: InitLoraWeights): number | undefined {
  const found = typeof init === "string" ? /^pissa_niter_(\d+)$/.exec(init) : null;
  return found === null ? undefined : Number(found[1]);
}

/** Whether the start is taken out of the weight. */
export function movesBase(init: InitLoraWeights): boolean {
  return typeof init === "string" && (init.startsWith("pissa") || init === "olora");
}

/** Throws `ERR_OPTION` for what is no way to start. */
export function checkInit(init: unknown): asserts init is InitLoraWeights {
  if (typeof init === "boolean" || NAMED.includes(init as string)) return;
  if (roundsOf(init as InitLoraWeights) !== undefined) return;
  const ways = `true, false, ${NAMED.join(", ")}, pissa_niter_N`;
  throw new LowrankError(
    "ERR_OPTION",
    BEYOND.includes(init as string)
      ? `${optionName("initLoraWeights")}: ${String(init)} is not built; there are ${ways}`
      : `${optionName("initLoraWeights")} is one of ${ways}, not ${shown(init)}${didYouMean(init, NAMED)}`,
  );
}
