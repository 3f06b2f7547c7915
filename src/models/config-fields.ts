/** Reads a JSON object of a model's folder field by field; errors name the file and the key. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { formatValue } from "../arguments/check.js";
import { removeBom } from "../data/source/utf8.js";
import { LowrankError, readSystemCode } from "../errors.js";

/** Formats a value for an error message: as JSON where possible, at most 40 characters. */
function formatField(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? formatValue(value);
  } catch {
    text = formatValue(value);
  }
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

/**
 * The fields of a JSON object, with `null` read as absent. Errors name the file (or the function that took the object)
 * and the key; their code is `ERR_FILE_FORMAT` by default.
 */
export class ConfigFields {
  readonly #readKeys = new Set<string>();

  constructor(
    readonly file: string,
    private readonly fields: Record<string, unknown>,
    private readonly path: string = "",
    private readonly code: "ERR_FILE_FORMAT" | "ERR_OPTION" = "ERR_FILE_FORMAT",
  ) {}

  has(key: string): boolean {
    this.#readKeys.add(key);
    return key in this.fields;
  }

  /** Keys that have a value and were never read. */
  listUnread(): string[] {
    return Object.keys(this.fields).filter(
      (key) => (this.fields[key] ?? null) !== null && !this.#readKeys.has(key),
    );
  }

  /** Keys that were read. */
  listRead(): string[] {
    return [...this.#readKeys];
  }

  /** The object itself. */
  toObject(): Record<string, unknown> {
    return this.fields;
  }

  createError(key: string, problem: string): LowrankError {
    const value = this.fields[key];
    const is = value === undefined ? "" : `, got ${formatField(value)}`;
    return this.createFailure(`${this.path}${key} ${problem}${is}`);
  }

  /** Returns an error about several fields together. */
  createFailure(problem: string): LowrankError {
    return new LowrankError(this.code, `${this.file}: ${problem}`);
  }

  readValue(key: string): unknown {
    this.#readKeys.add(key);
    return this.fields[key] ?? undefined;
  }

  readString(key: string): string | undefined {
    const value = this.readValue(key);
    if (value !== undefined && typeof value !== "string") throw this.createError(key, "must be a string");
    return value;
  }

  readBoolean(key: string): boolean | undefined {
    const value = this.readValue(key);
    if (value !== undefined && typeof value !== "boolean")
      throw this.createError(key, "must be true or false");
    return value;
  }

  /** A finite number above 0. */
  readPositive(key: string): number | undefined {
    const value = this.readValue(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
      throw this.createError(key, "must be a number above 0");
    }
    return value;
  }

  /** An integer from 1 to `limit`, a bound that no real model exceeds. */
  readSize(key: string, limit: number): number | undefined {
    const value = this.readPositive(key);
    if (value === undefined) return undefined;
    if (!Number.isInteger(value) || value > limit)
      throw this.createError(key, `must be an integer from 1 to ${limit}`);
    return value;
  }

  /** An integer from 0 to `limit`. */
  readCount(key: string, limit: number): number | undefined {
    return this.readValue(key) === 0 ? 0 : this.readSize(key, limit);
  }

  /** A list of `length` finite numbers above 0. */
  readPositives(key: string, length: number): number[] {
    const value = this.readValue(key);
    const fits =
      Array.isArray(value) && value.length === length && value.every((n) => Number.isFinite(n) && n > 0);
    if (!fits) throw this.createError(key, `must be a list of ${length} numbers above 0`);
    return value as number[];
  }

  /** A list of `length` words, each one of `words`. */
  readWords(key: string, words: readonly string[], length: number): string[] | undefined {
    const value = this.readValue(key);
    if (value === undefined) return undefined;
    const known = Array.isArray(value) && value.every((word) => words.includes(word as string));
    if (!known || value.length !== length)
      throw this.createError(key, `must be a list of ${length}, each ${words.join(" or ")}`);
    return value as string[];
  }

  requireNumber(key: string, kind: "positive"): number;
  requireNumber(key: string, kind: "size", limit: number): number;
  requireNumber(key: string, kind: "positive" | "size", limit = 0): number {
    const value = kind === "positive" ? this.readPositive(key) : this.readSize(key, limit);
    if (value === undefined) throw this.createError(key, "is missing");
    return value;
  }

  /** A token id. */
  readToken(key: string): number | undefined {
    return this.readTokens(key)[0];
  }

  /** Token ids: one, or a list. */
  readTokens(key: string): number[] {
    const value = this.readValue(key);
    if (value === undefined) return [];
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (!ids.every((id): id is number => Number.isInteger(id))) {
      throw this.createError(key, "must be a token id or a list of them");
    }
    return ids.filter((id) => id >= 0);
  }

  readObject(key: string): ConfigFields | undefined {
    const value = this.readValue(key);
    if (value === undefined) return undefined;
    if (typeof value !== "object" || Array.isArray(value)) throw this.createError(key, "must be an object");
    return new ConfigFields(this.file, value as Record<string, unknown>, `${this.path}${key}.`, this.code);
  }
}

/**
 * Reads a text file of a model's folder, without a byte order mark; undefined where it does not exist. Throws
 * `ERR_FILE_FORMAT` for a file that cannot be read.
 */
export function readText(file: string): string | undefined {
  try {
    return removeBom(readFileSync(file, "utf8"));
  } catch (cause) {
    const code = readSystemCode(cause);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: cannot be read (${code ?? String(cause)})`, {
      cause,
    });
  }
}

/**
 * Reads a JSON file that contains an object; undefined where the file does not exist.
 *
 * Throws `ERR_FILE_FORMAT` for a file that is not JSON or not an object.
 */
export function readConfigFields(file: string): ConfigFields | undefined {
  const text = readText(file);
  return text === undefined ? undefined : parseFields(file, text);
}

/** Parses a JSON text that contains an object; errors call it `file`. Throws `ERR_FILE_FORMAT`. */
export function parseFields(file: string, text: string): ConfigFields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message.replaceAll("\n", " ") : "";
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: not JSON (${detail})`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: a JSON object was expected`);
  }
  return new ConfigFields(file, value as Record<string, unknown>);
}

/**
 * Reads `config.json` of a model's folder, and `generation_config.json` where there is one.
 *
 * Throws `ERR_FILE_NOT_FOUND`, and as `readConfigFields` does.
 */
export function readModelConfig(folder: string): {
  config: ConfigFields;
  generation: ConfigFields | undefined;
} {
  const file = join(folder, "config.json");
  const config = readConfigFields(file);
  if (config === undefined) {
    const what = existsSync(folder)
      ? `${file}: no such file; a model's folder has one`
      : `${folder}: no such model`;
    throw new LowrankError("ERR_FILE_NOT_FOUND", what);
  }
  return { config, generation: readConfigFields(join(folder, "generation_config.json")) };
}
