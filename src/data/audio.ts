/** Validates audio samples of speech. */
import { formatValue } from "../arguments/check.js";

/** Samples per second. */
export const SAMPLE_RATE = 16_000;

/** Returns the problem with `samples`; undefined if they are valid. */
export function findSampleProblem(samples: unknown): string | undefined {
  if (!(samples instanceof Float32Array)) {
    const scaled = samples instanceof Int16Array ? "; divide 16-bit samples by 32768" : "";
    return `must be a Float32Array of samples at 16 kHz, from -1 to 1, got ${formatValue(samples)}${scaled}`;
  }
  if (samples.length === 0) return "is empty";
  const wrong = samples.findIndex((sample) => !Number.isFinite(sample));
  return wrong < 0 ? undefined : `has ${samples[wrong]} at sample ${wrong}`;
}
