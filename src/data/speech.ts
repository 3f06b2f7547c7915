/** Rows of speech and what is said in it: WAV files that a data file names, or samples that a caller gives. */
import { createHash, type Hash } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

import { isPlain, shown } from "../argument.js";
import { LowrankError, systemCode, throwIfAborted } from "../errors.js";
import { samplesProblem } from "../samples.js";
import type { Read, SpeechData } from "./read.js";
import { type Origin, rowAt, rowError } from "./origin.js";
import { stringField, type AudioRow } from "./rows.js";
import { STANDARD_INPUT } from "./source.js";
import { checkWaveSize, waveSamples } from "./wave.js";

/** A row that a model of speech is trained on. */
export interface SpokenText {
  /** Samples at 16 kHz, from −1 to 1. */
  audio: Float32Array;
  /** What is said. */
  text: string;
}

/** Rows of speech that are in memory, or that come one by one. */
export type SpokenTexts = Iterable<SpokenText> | AsyncIterable<SpokenText>;

/** A row whose samples are read when they are wanted. */
export interface SpeechRow {
  line: number;
  text: string;
  /** How many samples there are. */
  length: number;
  /** Throws `ERR_DATA_ROW` where they cannot be read any more. */
  samples(): Float32Array;
}

/** Reads the WAV files that rows name, from a data file's folder on, and checks them; their samples are not kept. */
export class WaveReader {
  readonly #folder: string;
  readonly #hash: Hash = createHash("sha256");
  /** Samples of each row. */
  readonly #lengths: number[] = [];

  constructor(private readonly origin: Origin) {
    const { file } = origin;
    this.#folder = file === STANDARD_INPUT ? process.cwd() : dirname(resolve(file));
  }

  /** Throws `ERR_DATA_ROW` with file and line for what is no WAV file of speech. */
  async check(row: AudioRow, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    const path = this.#path(row);
    let bytes: Uint8Array;
    try {
      const found = await stat(path);
      // A pipe or a device may never end.
      if (!found.isFile()) this.#refusal(row)("is no file");
      checkWaveSize(found.size, this.#refusal(row));
      bytes = await readFile(path, signal === undefined ? {} : { signal });
    } catch (cause) {
      throwIfAborted(signal);
      throw this.#unreadable(row, cause);
    }
    const { length } = this.#samples(row, bytes);
    this.#lengths.push(length);
    this.#hash.update(bytes);
  }

  /** The rows of a file, all of which have been checked, in its order. */
  async *rows(parts: AsyncIterable<Read<AudioRow[]>>): AsyncGenerator<Read<SpeechRow[]>> {
    let at = 0;
    for await (const { part, read } of parts) {
      const rows = part.map((row) => ({
        line: row.line,
        text: row.text,
        length: this.#lengths[at++] as number,
        samples: () => this.#read(row),
      }));
      yield { part: rows, read };
    }
  }

  /** The hash of a data file and of the files that it names. */
  sha256(file: string): string {
    return createHash("sha256").update(file).update(this.#hash.copy().digest()).digest("hex");
  }

  #read(row: AudioRow): Float32Array {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(this.#path(row));
    } catch (cause) {
      throw this.#unreadable(row, cause);
    }
    return this.#samples(row, bytes);
  }

  #samples(row: AudioRow, bytes: Uint8Array): Float32Array {
    const refuse = this.#refusal(row);
    const samples = waveSamples(bytes, refuse);
    const problem = samplesProblem(samples);
    if (problem !== undefined) refuse(problem);
    return samples;
  }

  #path({ audio }: AudioRow): string {
    return resolve(this.#folder, audio);
  }

  #refusal({ line, audio }: AudioRow): (what: string) => never {
    return (what) => {
      throw rowError(this.origin, line, `${audio} ${what}`);
    };
  }

  #unreadable({ line, audio }: AudioRow, cause: unknown): unknown {
    const code = systemCode(cause);
    if (cause instanceof LowrankError || code === undefined) return cause;
    const why = code === "ENOENT" || code === "ENOTDIR" ? "is not there" : `cannot be read (${code})`;
    return rowError(
      this.origin,
      line,
      `${audio} ${why}; audio is the path of a WAV file, from the data file's folder on`,
    );
  }
}

/**
 * Rows of samples that a caller gives, checked. Those of an array are its own; what comes one by one is put by in a file
 * that goes when the data is closed. `name` is what errors call them, as in `data[12]`.
 *
 * Errors: `ERR_DATA_ROW`; `ERR_WRITE` where there is no room to put them by; what the rows throw; the signal's reason.
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
      const { audio, text } = checked(value, origin, line);
      hash.update(`${text}\n${audio.length}\n`).update(bytesOf(audio));
      rows.push({ line, text, length: audio.length, samples: file?.put(audio) ?? (() => audio) });
    }
    if (rows.length === 0) throw new LowrankError("ERR_DATA_ROW", `${name}: there are no rows`);
  } catch (error) {
    file?.close();
    throw error;
  }
  // eslint-disable-next-line @typescript-eslint/require-await
  async function* parts(): AsyncGenerator<Read<SpeechRow[]>> {
    yield { part: rows, read: rows.length };
  }
  const content = {
    ...origin,
    size: rows.length,
    sha256: hash.digest("hex"),
    parts,
    close: () => file?.close(),
  };
  return { kind: "speech", file: name, sources: [content], count: rows.length, first: rowAt(origin, 0) };
}

function checked(value: unknown, origin: Origin, line: number): SpokenText {
  const refuse = (problem: string): never => {
    throw rowError(origin, line, problem);
  };
  if (!isPlain(value)) return refuse(`the row is { audio, text }, not ${shown(value)}`);
  const { audio } = value as { audio?: unknown };
  const problem = samplesProblem(audio);
  if (problem !== undefined) refuse(`audio ${problem}`);
  const text = stringField(value as Record<string, unknown>, "text", refuse);
  return { audio: audio as Float32Array, text };
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Samples that are put by on disk. */
class SampleFile {
  readonly #folder = mkdtempSync(join(tmpdir(), "lowrank-data-"));
  #file: number | undefined = openSync(join(this.#folder, "samples"), "wx+", 0o600);
  #end = 0;

  /** What reads them again. Throws `ERR_WRITE`. */
  put(samples: Float32Array): () => Float32Array {
    const [start, { length }] = [this.#end, samples];
    const bytes = bytesOf(samples);
    try {
      for (let at = 0; at < bytes.length;)
        at += writeSync(this.#file as number, bytes, at, bytes.length - at, start + at);
    } catch (cause) {
      const what = `${tmpdir()}: rows of speech cannot be put by there (${systemCode(cause)}); set TMPDIR, or give an array`;
      throw new LowrankError("ERR_WRITE", what, { cause });
    }
    this.#end += bytes.length;
    return () => {
      const read = new Float32Array(length);
      const into = bytesOf(read);
      for (let at = 0; at < into.length;) {
        const count = readSync(this.#file as number, into, at, into.length - at, start + at);
        if (count === 0) throw new LowrankError("ERR_INTERNAL", "rows of speech that were put by are gone");
        at += count;
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
