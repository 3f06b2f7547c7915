/** Reads samples of WAV files: 16-bit or float, any number of channels, at 16 kHz. */
import { SAMPLE_RATE } from "./audio.js";

/** The maximum file size: minutes of speech, while a row is seconds. */
const LARGEST = 256 << 20;

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;
/** The size written by writers that cannot seek back. */
const UNKNOWN = 0xffffffff;

interface Format {
  kind: number;
  channels: number;
  rate: number;
  bits: number;
}

/** Calls `refuse` for a file that is too large for a row. */
export function checkWaveSize(size: number, refuse: (what: string) => never): void {
  if (size > LARGEST) refuse(`has ${size} bytes, and a row of speech at most ${LARGEST}`);
}

/** Returns a file's samples, from −1 to 1, averaged over its channels. Calls `refuse` for an invalid file. */
export function readWave(bytes: Uint8Array, refuse: (what: string) => never): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const name = (offset: number): string => String.fromCharCode(...bytes.subarray(offset, offset + 4));
  if (bytes.length < 12 || name(0) !== "RIFF" || name(8) !== "WAVE") refuse("is not a WAV file");
  let format: Format | undefined;
  for (let offset = 12; offset + 8 <= bytes.length;) {
    const [kind, statedSize] = [name(offset), view.getUint32(offset + 4, true)];
    const start = offset + 8;
    const size = kind === "data" && statedSize === UNKNOWN ? bytes.length - start : statedSize;
    if (start + size > bytes.length) refuse(`ends within "${kind}", which has ${size} bytes`);
    if (kind === "fmt ") format = readFormat(view, start, size, refuse);
    if (kind === "data") {
      if (format === undefined) return refuse('has "data" before "fmt "');
      return mixChannels(view, start, size, format, refuse);
    }
    // Chunks begin at even offsets.
    offset = start + size + (size % 2);
  }
  return refuse('has no "data"');
}

function readFormat(view: DataView, offset: number, size: number, refuse: (what: string) => never): Format {
  if (size < 16) refuse(`has a "fmt " of ${size} bytes`);
  const format = view.getUint16(offset, true);
  // The format code of an extensible header is the first part of its identifier.
  const kind = format === EXTENSIBLE && size >= 26 ? view.getUint16(offset + 24, true) : format;
  const channels = view.getUint16(offset + 2, true);
  const rate = view.getUint32(offset + 4, true);
  const bits = view.getUint16(offset + 14, true);
  if (!((kind === PCM && bits === 16) || (kind === FLOAT && bits === 32)))
    refuse(`has ${bits}-bit samples of format ${kind}; 16-bit (format 1) and 32-bit float (3) are supported`);
  if (channels === 0) refuse("has no channels");
  if (rate !== SAMPLE_RATE)
    refuse(
      `is at ${rate} Hz, but must be at ${SAMPLE_RATE}; resample it, for example with ffmpeg -i IN -ar ${SAMPLE_RATE} OUT.wav`,
    );
  return { kind, channels, rate, bits };
}

function mixChannels(
  view: DataView,
  start: number,
  size: number,
  { kind, channels, bits }: Format,
  refuse: (what: string) => never,
): Float32Array {
  const width = bits / 8;
  const frame = width * channels;
  if (size % frame !== 0)
    refuse(`has ${size} bytes of samples, not a multiple of a frame of ${channels} channels`);
  const samples = new Float32Array(size / frame);
  for (let i = 0; i < samples.length; i++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) {
      const offset = start + i * frame + channel * width;
      sum += kind === FLOAT ? view.getFloat32(offset, true) : view.getInt16(offset, true) / 32768;
    }
    samples[i] = sum / channels;
  }
  return samples;
}
