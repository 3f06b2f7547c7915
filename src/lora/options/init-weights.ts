/** Initialisations of an adapter. */
import { formatValue } from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { optionName } from "../../arguments/option-name.js";
import { didYouMean } from "../../arguments/suggest.js";

/**
 * The initialisation of A and B.
 *
 * - `true`: A as U(±1/√in), B zero; loralib's.
 * - `false`: both random, so that a new adapter changes the model; for tests.
 * - `gaussian`: A as N(0, 1/r²), B zero.
 * - `orthogonal`: A and B from an orthogonal matrix, so that their product is zero; r must be even.
 * - `pissa`: the largest singular directions of the weight (Meng et al. 2024); `pissa_niter_N` computes them on a random
 *   subspace with N iterations.
 * - `olora`: the first directions of the weight's QR decomposition (Büyükakyüz 2024).
 * - `eva`: A as the principal components of the layer's inputs on `evaData`, with more rank for layers where they explain
 *   more variance (Paischer et al. 2024); B zero.
 */
export type InitLoraWeights =
  boolean | "gaussian" | "orthogonal" | "pissa" | `pissa_niter_${number}` | "olora" | "eva";

const NAMED = ["gaussian", "orthogonal", "pissa", "olora", "eva"];
/** Initialisations of PEFT's that are not supported. */
const BEYOND = ["loftq", "corda", "lora_ga", "mica"];

/** Returns N of `pissa_niter_N`; undefined for anything else. */
export function parseRounds(init: InitLoraWeights): number | undefined {
  const found = typeof init === "string" ? /^pissa_niter_(\d+)$/.exec(init) : null;
  return found === null ? undefined : Number(found[1]);
}

/** Whether the initial product is subtracted from the weight. */
export function movesBase(init: InitLoraWeights): boolean {
  return typeof init === "string" && (init.startsWith("pissa") || init === "olora");
}

/** Throws `ERR_OPTION` for an unknown initialisation. */
export function checkInit(init: unknown): asserts init is InitLoraWeights {
  if (typeof init === "boolean" || NAMED.includes(init as string)) return;
  if (parseRounds(init as InitLoraWeights) !== undefined) return;
  const ways = `true, false, ${NAMED.join(", ")}, pissa_niter_N`;
  throw new LowrankError(
    "ERR_OPTION",
    BEYOND.includes(init as string)
      ? `${optionName("initLoraWeights")}: ${String(init)} is not supported; there are ${ways}`
      : `${optionName("initLoraWeights")} must be one of ${ways}, got ${formatValue(init)}${didYouMean(init, NAMED)}`,
  );
}
