/** The inputs of Whisper's goldens, derived from a key as in the Python scripts: noise, speech, features. */
import { words } from "../hashed.js";

/** Returns values uniform in ±scale, rounded to f32 as in `fill.uniform`, as f64. */
export function hashedNoise(key: string, length: number, scale: number): Float64Array {
  return uniform(`whisper/${key}/audio`, length, scale);
}

/** Returns noise that swells and fades. */
export function hashedSpeech(key: string, length: number): Float32Array {
  const noise = hashedNoise(key, length, 0.3);
  return Float32Array.from(noise, (one, i) => one * Math.abs(1 - (2 * i) / length));
}

/** Returns `count` values of features. */
export function hashedFeatures(key: string, count: number): Float32Array {
  return Float32Array.from(uniform(`whisper/${key}`, count, 1.5));
}

function uniform(name: string, count: number, scale: number): Float64Array {
  return Float64Array.from(words(name, count), (word) =>
    Math.fround(((word >>> 8) / 2 ** 24 - 0.5) * 2 * scale),
  );
}
