/**
 * Log-mel features of speech, as in transformers' WhisperFeatureExtractor. They are computed on the host in f64, so
 * they are the same bit for bit on every device. The logarithm shows bins a hundred million times weaker than the
 * strongest; f64 keeps them right, while sums in f32 are off in the fourth place. 30 s of speech take about a tenth of
 * a second.
 */
import { join } from "node:path";

import { formatValue } from "../../arguments/check.js";
import { LowrankError } from "../../errors.js";
import { SAMPLE_RATE, findSampleProblem } from "../../data/audio.js";
import { ConfigFields, readConfigFields } from "../config-fields.js";
import type { WhisperConfig } from "./config.js";
import { Fourier } from "./fourier.js";
import { createMelFilters, type MelFilter } from "./mel.js";

/** Samples per frame. */
const WINDOW = 400;
/** Samples between the starts of adjacent frames. */
const HOP = 160;
const BINS = WINDOW / 2 + 1;
/** The lower bound of the power. */
const FLOOR = 1e-10;

/** Computes log-mel features. */
export class LogMel {
  /** The window length in samples; shorter speech is padded with silence, longer speech is truncated. */
  readonly samples: number;
  readonly #fourier = new Fourier(5, 5, 4, 4);
  readonly #window = Float64Array.from(
    { length: WINDOW },
    (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW),
  );
  readonly #filters: MelFilter[];

  constructor(
    readonly mels: number,
    readonly frames: number,
  ) {
    this.samples = frames * HOP;
    this.#filters = createMelFilters(mels, BINS, SAMPLE_RATE / 2);
  }

  /** Maps samples at 16 kHz to features [mels, frames]. */
  compute(speech: Float32Array): Float32Array {
    const { frames, mels } = this;
    const features = new Float64Array(mels * frames).fill(Math.log10(FLOOR));
    const [re, im] = [new Float64Array(WINDOW), new Float64Array(WINDOW)];
    const power = new Float64Array(BINS);
    // One complex transform handles two frames, as its real and its imaginary part.
    for (let t = 0; t < frames; t += 2) {
      const isSpeech = [this.#writeFrame(speech, t, re), this.#writeFrame(speech, t + 1, im)];
      if (!isSpeech.includes(true)) continue;
      this.#fourier.transform(re, im);
      for (const [which, frame] of [t, t + 1].entries()) {
        if (frame >= frames) break;
        computePowers(re, im, which, power);
        this.#writeMel(power, features, frame);
      }
    }
    const least = features.reduce((most, value) => Math.max(most, value), -Infinity) - 8;
    return Float32Array.from(features, (value) => (Math.max(value, least) + 4) / 4);
  }

  /** Writes frame `t`, windowed, with the speech mirrored at both ends. Returns whether it is not silent. */
  #writeFrame(speech: Float32Array, t: number, out: Float64Array): boolean {
    const last = this.samples - 1;
    let isSpeech = false;
    for (let i = 0, sample = t * HOP - WINDOW / 2; i < WINDOW; i++, sample++) {
      const place = sample < 0 ? -sample : sample > last ? 2 * last - sample : sample;
      const value = speech[place] ?? 0;
      isSpeech ||= value !== 0;
      out[i] = value * (this.#window[i] as number);
    }
    return isSpeech;
  }

  #writeMel(power: Float64Array, features: Float64Array, frame: number): void {
    for (const [mel, { first, weights }] of this.#filters.entries()) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += (weights[i] as number) * (power[first + i] as number);
      features[mel * this.frames + frame] = Math.log10(Math.max(sum, FLOOR));
    }
  }
}

/** Extracts |X|² of the real (`which` 0) or imaginary part (1) from the transform of both. */
function computePowers(re: Float64Array, im: Float64Array, which: number, out: Float64Array): void {
  for (let k = 0; k < BINS; k++) {
    const other = (WINDOW - k) % WINDOW;
    const [x, y, u, v] = [re[k], im[k], re[other], im[other]] as [number, number, number, number];
    out[k] = which === 0 ? ((x + u) ** 2 + (y - v) ** 2) / 4 : ((y + v) ** 2 + (u - x) ** 2) / 4;
  }
}

/** Checks samples. Throws `ERR_OPTION`. */
export function checkSamples(where: string, name: string, samples: unknown): Float32Array {
  const problem = findSampleProblem(samples);
  if (problem === undefined) return samples as Float32Array;
  throw new LowrankError("ERR_OPTION", `${where}: ${name} ${problem}`);
}

/**
 * Checks the feature settings in a folder's `preprocessor_config.json` or `processor_config.json` against the model;
 * missing settings pass. Throws `ERR_FILE_FORMAT`, `ERR_UNSUPPORTED_MODEL`.
 */
export function checkFeatureConfig(folder: string, { numMelBins, maxSourcePositions }: WhisperConfig): void {
  const preprocessor = readConfigFields(join(folder, "preprocessor_config.json"));
  const fields =
    preprocessor ?? readConfigFields(join(folder, "processor_config.json"))?.readObject("feature_extractor");
  if (fields === undefined) return;
  const kind = fields.readString("feature_extractor_type");
  if (kind !== undefined && kind !== "WhisperFeatureExtractor")
    throw fields.createError("feature_extractor_type", "must be WhisperFeatureExtractor");
  const requireSame = (key: string, expected: number, what: string): void => {
    if ((fields.readPositive(key) ?? expected) !== expected)
      throw fields.createError(key, `must be ${expected}, ${what}`);
  };
  requireSame("feature_size", numMelBins, "the num_mel_bins of config.json");
  requireSame("sampling_rate", SAMPLE_RATE, "at which Whisper hears");
  requireSame("n_fft", WINDOW, "which Whisper's frames are");
  requireSame("hop_length", HOP, "from one of Whisper's frames to the next");
  const seconds = (2 * maxSourcePositions * HOP) / SAMPLE_RATE;
  requireSame("chunk_length", seconds, "which max_source_positions of config.json makes");
  requireSame("nb_max_frames", 2 * maxSourcePositions, "twice the max_source_positions of config.json");
  requireSame("n_samples", 2 * maxSourcePositions * HOP, "which max_source_positions of config.json makes");
  for (const key of ["dither", "padding_value"]) checkZero(fields, key);
  if (fields.readBoolean("do_normalize") !== true) return;
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${fields.file}: do_normalize is true, which is not supported`,
  );
}

function checkZero(fields: ConfigFields, key: string): void {
  const value = fields.readValue(key);
  if (value === undefined || value === 0) return;
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${fields.file}: ${key} is ${formatValue(value)}, and only 0 is supported`,
  );
}
