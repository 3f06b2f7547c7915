/**
 * Log-mel features compared with transformers' WhisperFeatureExtractor in float64 (README.md). Both round only
 * their results to f32, so 1e-6 is a few of those roundings, while torch's float32, as used by transformers' users,
 * is off by up to 5e-5 for pure tones.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";
import { LogMel } from "../../src/models/whisper/features.js";
import { goldens, onHost } from "./goldens.js";
import { hashedNoise } from "./speech.js";

const RATE = 16_000;
const WINDOW = 480_000;

interface Case {
  name: string;
  mels: number;
  frames: number[];
  mean: number;
}

const wave = (length: number, at: (t: number) => number): Float32Array =>
  Float32Array.from({ length }, (_, i) => at(i / RATE));

function sounds(): Record<string, Float32Array> {
  const click = new Float32Array(RATE);
  click[8000] = 1;
  const quiet = hashedNoise("quiet", 2 * RATE, 1e-5);
  const loud = (i: number): number => (i < RATE ? 0.9 * Math.sin((2 * Math.PI * 1000 * i) / RATE) : 0);
  const exact = hashedNoise("exact", WINDOW, 0.3);
  return {
    sine: wave(2 * RATE, (t) => 0.5 * Math.sin(2 * Math.PI * 440 * t)),
    chirp: wave(5 * RATE, (t) => 0.7 * Math.sin(2 * Math.PI * (100 * t + 780 * t * t))),
    noise: Float32Array.from(hashedNoise("noise", 3 * RATE, 0.8)),
    silence: new Float32Array(RATE),
    click,
    quiet: Float32Array.from(quiet, (one, i) => one + loud(i)),
    short: Float32Array.from(hashedNoise("short", 100, 0.5)),
    one: Float32Array.of(0.25),
    exact: Float32Array.from(exact, (one, i) => one * (i / (WINDOW - 1))),
    longer: Float32Array.from(hashedNoise("longer", WINDOW + 3 * RATE, 0.3)),
  };
}

test("features of sines, noise, silence, a click, and sounds that are short, exactly 30 s or longer", async (t) => {
  const { cases } = JSON.parse(readFileSync(join(goldens, "whisper_features.json"), "utf8")) as {
    cases: Case[];
  };
  const host = await onHost(join(goldens, "whisper_features.safetensors"));
  const made = sounds();
  t.is(cases.length, 13);
  for (const { name, mels, frames, mean } of cases) {
    const features = new LogMel(mels, 3000).compute(made[name] as Float32Array);
    t.is(features.length, mels * 3000);
    const golden = (host[`${name}.${mels}`] as { data: Float32Array }).data;
    let worst = 0;
    for (let mel = 0; mel < mels; mel++) {
      for (const [i, frame] of frames.entries()) {
        const [ours, theirs] = [features[mel * 3000 + frame], golden[mel * frames.length + i]];
        worst = Math.max(worst, Math.abs((ours as number) - (theirs as number)));
      }
    }
    t.true(worst < 1e-6, `${name} of ${mels} is off by ${worst}`);
    const own = features.reduce((sum, one) => sum + one, 0) / features.length;
    t.true(Math.abs(own - mean) < 1e-6, `${name} of ${mels}: the mean is ${own}, not ${mean}`);
  }
});
