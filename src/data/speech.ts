/** Rows of speech with transcripts: WAV files named in a data file, or samples from the caller. */
import { createHash, type Hash } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

import { isPlain, formatValue } from "../arguments/check.js";
import { LowrankError, readSystemCode, throwIfAborted } from "../errors.js";
import { findSampleProblem } from "./audio.js";
import type { DataChunk, SpeechData } from "./read.js";
import { type Origin, describeRow, createRowError } from "./source/origin.js";
import { readStringField, type AudioRow } from "./rows.js";
import { STANDARD_INPUT } from "./source/source.js";
import { checkWaveSize, readWave } from "./wave.js";

/** A row for a speech model. */
export interface SpokenText {
  /** Samples at 16 kHz, from −1 to 1. */
  audio: Float32Array;
  /** The transcript. */
  text: string;
}

/** Rows of speech in memory, or from an iterable. */
export type SpokenTexts = Iterable<SpokenText> | AsyncIterable<SpokenText>;

/** A row whose samples are read on demand. */
export interface SpeechRow {
  line: number;
  text: string;
  /** The number of samples. */
  length: number;
  /** Reads the samples. Throws `ERR_DATA_ROW` where they can no longer be read. */
  samples(): Float32Array;
  /** Unknown fields of the row, which are not used. */
  unused?: readonly string[] | undefined;
}

/** Reads and checks WAV files whose paths are relative to the data file's folder; samples are not kept. */
export class WaveReader {
  readonly #folder: string;
  readonly #hash: Hash = createHash("sha256");
  /** The number of samples of each row. */
  readonly #lengths: number[] = [];

  constructor(private readonly origin: Origin) {
    const { file } = origin;
    this.#folder = file === STANDARD_INPUT ? process.cwd() : dirname(resolve(file));
  }

  /** Checks a row's file. Throws `ERR_DATA_ROW` with file and line where it is not a WAV file of speech. */
  async check(row: AudioRow, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    const path = this.#resolvePath(row);
    let bytes: Uint8Array;
    try {
      const found = await stat(path);
      // A pipe or device may never end.
      if (!found.isFile()) this.#createRefuse(row)("is not a file");
      checkWaveSize(found.size, this.#createRefuse(row));
      bytes = await readFile(path, signal === undefined ? {} : { signal });
    } catch (cause) {
      throwIfAborted(signal);
      throw this.#createReadError(row, cause);
    }
    const { length } = this.#decode(row, bytes);
    this.#lengths.push(length);
    this.#hash.update(bytes);
  }

  /** Yields the rows of a file after all have been checked. */
  async *streamRows(parts: AsyncIterable<DataChunk<AudioRow[]>>): AsyncGenerator<DataChunk<SpeechRow[]>> {
    let index = 0;
    for await (const { part, read } of parts) {
      const rows = part.map((row) => ({
        line: row.line,
        text: row.text,
        length: this.#lengths[index++] as number,
        samples: () => this.#read(row),
        ...(row.unused && { unused: row.unused }),
      }));
      yield { part: rows, read };
    }
  }

  /** Returns the hash of a data file and its WAV files, where `file` is the data file's hash. */
  hashWith(file: string): string {
    return createHash("sha256").update(file).update(this.#hash.copy().digest()).digest("hex");
  }

  #read(row: AudioRow): Float32Array {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(this.#resolvePath(row));
    } catch (cause) {
      throw this.#createReadError(row, cause);
    }
    return this.#decode(row, bytes);
  }

  #decode(row: AudioRow, bytes: Uint8Array): Float32Array {
    const refuse = this.#createRefuse(row);
    const samples = readWave(bytes, refuse);
    const problem = findSampleProblem(samples);
    if (problem !== undefined) refuse(problem);
    return samples;
  }

  #resolvePath({ audio }: AudioRow): string {
    return resolve(this.#folder, audio);
  }

  #createRefuse({ line, audio }: AudioRow): (what: string) => never {
    return (what) => {
      throw createRowError(this.origin, line, `${audio} ${what}`);
    };
  }

  #createReadError({ line, audio }: AudioRow, cause: unknown): unknown {
    const code = readSystemCode(cause);
    if (cause instanceof LowrankError || code === undefined) return cause;
    const why = code === "ENOENT" || code === "ENOTDIR" ? "is not there" : `cannot be read (${code})`;
    return createRowError(
      this.origin,
      line,
      `${audio} ${why}; audio is the path of a WAV file, relative to the data file's folder`,
    );
  }
}

/**
 * Reads and checks rows of samples from the caller. Samples of an array stay in it; samples of an iterable are copied
 * to a temporary file, which is deleted when the data is closed. `name` is their name in errors, as in `data[12]`.
 *
 * Throws `ERR_DATA_ROW`; `ERR_WRITE` where the disk is full; errors of the iterable; the signal's reason.
 */
export async function readSpokenTexts(
  name: string,
  given: SpokenTexts,
  signal: AbortSignal | undefined,
): Promise<SpeechData> {
  const file = Array.isArray(given) ? undefined : new SampleFile();
  const origin: Origin = { file: name, numbering: "index" };
  const hash = createHash("sha256");
  const rows: SpeechRow[] = [];
  try {
    throwIfAborted(signal);
    for await (const value of given) {
      throwIfAborted(signal);
      const line = rows.length;
      const { audio, text } = checkSpokenText(value, origin, line);
      hash.update(`${text}\n${audio.length}\n`).update(viewBytes(audio));
      rows.push({ line, text, length: audio.length, samples: file?.put(audio) ?? (() => audio) });
    }
    if (rows.length === 0) throw new LowrankError("ERR_DATA_ROW", `${name}: there are no rows`);
  } catch (error) {
    file?.close();
    throw error;
  }
  // eslint-disable-next-line @typescript-eslint/require-await
  async function* parts(): AsyncGenerator<DataChunk<SpeechRow[]>> {
    yield { part: rows, read: rows.length };
  }
  const content = {
    ...origin,
    size: rows.length,
    sha256: hash.digest("hex"),
    parts,
    close: () => file?.close(),
  };
  return {
    kind: "speech",
    file: name,
    sources: [content],
    count: rows.length,
    first: describeRow(origin, 0),
  };
}

function checkSpokenText(value: unknown, origin: Origin, line: number): SpokenText {
  const refuse = (problem: string): never => {
    throw createRowError(origin, line, problem);
  };
  if (!isPlain(value)) return refuse(`the row is { audio, text }, not ${formatValue(value)}`);
  const { audio } = value as { audio?: unknown };
  const problem = findSampleProblem(audio);
  if (problem !== undefined) refuse(`audio ${problem}`);
  const text = readStringField(value as Record<string, unknown>, "text", refuse);
  return { audio: audio as Float32Array, text };
}

function viewBytes({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** A temporary file of samples. */
class SampleFile {
  readonly #folder = mkdtempSync(join(tmpdir(), "lowrank-data-"));
  #file: number | undefined = openSync(join(this.#folder, "samples"), "wx+", 0o600);
  #end = 0;

  /** Appends samples; returns a function that reads them again. Throws `ERR_WRITE`. */
  put(samples: Float32Array): () => Float32Array {
    const [start, { length }] = [this.#end, samples];
    const bytes = viewBytes(samples);
    try {
      for (let written = 0; written < bytes.length;)
        written += writeSync(this.#file as number, bytes, written, bytes.length - written, start + written);
    } catch (cause) {
      const what = `${tmpdir()}: rows of speech cannot be written there (${readSystemCode(cause)}); set TMPDIR, or give an array`;
      throw new LowrankError("ERR_WRITE", what, { cause });
    }
    this.#end += bytes.length;
    return () => {
      const read = new Float32Array(length);
      const into = viewBytes(read);
      for (let filled = 0; filled < into.length;) {
        const count = readSync(this.#file as number, into, filled, into.length - filled, start + filled);
        if (count === 0)
          throw new LowrankError("ERR_INTERNAL", "the temporary file of rows of speech is too short");
        filled += count;
      }
      return read;
    };
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
