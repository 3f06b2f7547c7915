/** Reads a GGUF file's metadata key by key; errors name the file and the key. */
import { LowrankError } from "../../errors.js";
import type { GgufValue } from "../read.js";
import { call, type GgufFile } from "../../native/binding.js";

/** The metadata of a file. Values are read on demand. */
export class Metadata {
  readonly #readKeys = new Set<string>();
  readonly #keys: Set<string>;

  constructor(
    readonly file: GgufFile,
    /** The file's name in errors. */
    readonly where: string,
  ) {
    this.#keys = new Set(call(() => file.keys()));
  }

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  /** Keys with this prefix that were never read. */
  listUnread(prefix: string): string[] {
    return [...this.#keys].filter((key) => key.startsWith(prefix) && !this.#readKeys.has(key));
  }

  readValue(key: string): GgufValue | undefined {
    this.#readKeys.add(key);
    return (call(() => this.file.metadata(key)) as GgufValue | null) ?? undefined;
  }

  createError(key: string, problem: string): LowrankError {
    return new LowrankError("ERR_FILE_FORMAT", `${this.where}: ${key} ${problem}`);
  }

  createUnsupported(what: string): LowrankError {
    return new LowrankError("ERR_UNSUPPORTED_MODEL", `${this.where}: ${what}`);
  }

  readText(key: string): string | undefined {
    const value = this.readValue(key);
    if (value !== undefined && typeof value !== "string") throw this.createError(key, "must be a text");
    return value;
  }

  readFlag(key: string): boolean | undefined {
    const value = this.readValue(key);
    if (value !== undefined && typeof value !== "boolean")
      throw this.createError(key, "must be true or false");
    return value;
  }

  /** Reads a number; an f32 becomes the shortest equal decimal, 1e-5 rather than 0.000009999999747. */
  readNumber(key: string): number | undefined {
    const value = this.readValue(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number") throw this.createError(key, "must be a number");
    return Math.fround(value) === value ? shortenDecimal(value) : value;
  }

  requireNumber(key: string): number {
    const value = this.readNumber(key);
    if (value === undefined) throw this.createError(key, "is missing, which a model's file has");
    return value;
  }

  /** Returns the length of a list of texts without reading them. */
  countTexts(key: string): number | undefined {
    this.#readKeys.add(key);
    return call(() => this.file.textCount(key)) ?? undefined;
  }

  /** Reads entry `index` of a list of texts; undefined beyond its end. */
  readTextAt(key: string, index: number): string | undefined {
    this.#readKeys.add(key);
    const isPlace = Number.isInteger(index) && index >= 0 && index < 2 ** 32;
    return isPlace ? (call(() => this.file.textAt(key, index)) ?? undefined) : undefined;
  }
}

export function isList(value: GgufValue | undefined): value is readonly GgufValue[] {
  return Array.isArray(value);
}

/** Returns the decimal with the fewest digits that rounds to the same f32. */
function shortenDecimal(value: number): number {
  for (let digits = 6; digits < 9; digits++) {
    const decimal = Number(value.toPrecision(digits));
    if (Math.fround(decimal) === value) return decimal;
  }
  return value;
}
