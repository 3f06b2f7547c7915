/** `--config FILE.yaml`: options of a command by name, such as `batch-size: 4`. */
import { readFile } from "node:fs/promises";
import { type Command, InvalidArgumentError, type Option } from "commander";
import { LowrankError, readSystemCode } from "../../errors.js";
import { isPlain } from "../../arguments/check.js";
import { didYouMean } from "../../arguments/suggest.js";
import { UsageError } from "../terminal/failure.js";
import { adviseKey } from "./foreign-flags.js";
import { FLAGS } from "../options/flags.js";
import { findFlag } from "./option-names.js";
import { collect } from "../options/values.js";

/** Reads a YAML or JSON file of options by name. Throws `ERR_FILE_NOT_FOUND`, and `UsageError` for other contents. */
export async function readConfig(file: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: cannot be read (${readSystemCode(cause)})`, {
      cause,
    });
  }
  const value = await parseYaml(text, file);
  if (value === null) return {};
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new UsageError(`${file}: expected options by name, such as "rank: 16"`);
  }
  return value as Record<string, unknown>;
}

/** Returns the value of YAML, which includes JSON. Throws `UsageError` with the line for text that is not YAML. */
async function parseYaml(text: string, file: string): Promise<unknown> {
  // Imported here because most commands do not need it.
  const { LineCounter, parseDocument } = await import("yaml");
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false });
  // A warning is about a tag that YAML does not define, whose value would be taken as text.
  const [fault] = [...document.errors, ...document.warnings];
  let value: unknown;
  try {
    value = fault === undefined ? document.toJS() : undefined;
  } catch (cause) {
    // An alias without an anchor.
    throw new UsageError(`${file}: not YAML: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  const isComment = (line: string): boolean => /^\s*(\/\/|\/\*)/.test(line);
  const comment = text.split("\n").findIndex(isComment);
  if (comment >= 0 && (fault !== undefined || (isPlain(value) && Object.keys(value).some(isComment))))
    throw new UsageError(`${file}: line ${comment + 1}: a comment starts with #, in JSON too`);
  if (fault === undefined) return value;
  const { line } = lineCounter.linePos(fault.pos[0]);
  throw new UsageError(`${file}: line ${line}: ${REASONS[fault.code] ?? `not YAML: ${fault.message}`}`);
}

/** Messages for errors that the parser reports by names of its functions, or at length. */
const REASONS: Readonly<Record<string, string>> = {
  MULTIPLE_DOCS: "a second document starts here, and the file must have one",
  DUPLICATE_KEY: "this key is given twice",
};

function findOption(command: Command, key: string, file: string): Option {
  const option = command.options.find((candidate) => candidate.long === `--${key}`);
  if (option !== undefined && key !== "config") return option;
  const advice = adviseKey(command, key);
  if (advice !== undefined) throw new UsageError(`${file}: unknown key "${key}"; ${advice}`);
  const known = command.options
    .map((candidate) => candidate.long?.slice(2))
    .filter((name) => name !== "config");
  // The key may be an option name of the library.
  const flag = key === "config" ? undefined : findFlag(command, key)?.slice(2);
  const near =
    flag === undefined
      ? didYouMean(
          key,
          known.filter((name) => name !== undefined),
        )
      : ` (did you mean ${flag}?)`;
  throw new UsageError(`${file}: unknown key "${key}"${near}; known are ${known.join(", ")}`);
}

/** Whether an option accepts `true` and `false` as values. */
function isBoolean(option: Option, value: boolean): boolean {
  try {
    return option.parseArg?.(String(value), undefined) === value;
  } catch {
    return false;
  }
}

/** Returns the parsed value of an option from a file. Throws `UsageError` with the file and the key. */
export function parseValue(option: Option, value: unknown, file: string): unknown {
  const key = option.long?.slice(2);
  if (typeof value === "boolean") {
    if (!option.required || isBoolean(option, value)) return value;
    throw new UsageError(`${file}: ${key} needs a value, got ${value}`);
  }
  if (!option.required && !option.optional) throw new UsageError(`${file}: ${key} must be true or false`);
  // For a repeatable option, each list element is one occurrence.
  if (option.parseArg === collect) return (Array.isArray(value) ? value : [value]).map(String);
  const text = Array.isArray(value) ? value.join(",") : String(value);
  if (typeof value === "object" && !Array.isArray(value))
    throw new UsageError(`${file}: ${key} must be a plain value`);
  try {
    if (option.argChoices !== undefined && !option.argChoices.includes(text)) {
      const near = didYouMean(text, option.argChoices);
      throw new InvalidArgumentError(
        `It must be one of ${option.argChoices.join(", ")}, got ${text}${near}.`,
      );
    }
    return option.parseArg?.(text, undefined) ?? text;
  } catch (error) {
    if (error instanceof InvalidArgumentError) throw new UsageError(`${file}: ${key}: ${error.message}`);
    throw error;
  }
}

/** Returns the attribute of the alternative to a flag: if one is given, the file's value of the other is ignored. */
function findRival(attribute: string): string | undefined {
  const rival = FLAGS.find((flag) => flag.attribute === attribute)?.entry.excludes;
  return rival === undefined ? undefined : FLAGS.find(({ path }) => path.join(".") === rival)?.attribute;
}

/**
 * Applies the options in a file, except those given on the command line. `strength` distinguishes a recipe of this package
 * (`default`) from the user's file (`config`).
 */
export async function applyConfigFile(
  command: Command,
  file: string,
  strength: "config" | "default" = "config",
): Promise<void> {
  applyConfig(command, await readConfig(file), { file, strength });
}

/** Applies the options that were read from a file. `source` is recorded as the source of their values. */
export function applyConfig(
  command: Command,
  values: Readonly<Record<string, unknown>>,
  {
    file,
    strength = "config",
    source = strength,
  }: { file: string; strength?: "config" | "default"; source?: string },
): void {
  for (const [key, value] of Object.entries(values)) {
    const option = findOption(command, key, file);
    const parsed = value === null ? undefined : parseValue(option, value, file);
    const name = option.attributeName();
    const isGiven = [name, findRival(name)].some((candidate) => {
      const given = candidate === undefined ? undefined : command.getOptionValueSource(candidate);
      return given === "cli" || (given === "config" && strength === "default");
    });
    if (parsed !== undefined && !isGiven) command.setOptionValueWithSource(name, parsed, source);
  }
}
