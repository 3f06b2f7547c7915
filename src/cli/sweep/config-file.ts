/** The file of a sweep: options of `finetune` by the names of their flags, the space, and options of the sweep. */
import type { Command } from "commander";
import { isPlain } from "../../arguments/check.js";
import { didYouMean } from "../../arguments/suggest.js";
import { findFault, whole } from "../../train/options/kinds.js";
import type { SweepOptions } from "../../train/sweep/options.js";
import { SPACE_OPTIONS } from "../../train/sweep/space.js";
import { applyConfig, readConfig, parseValue } from "../finetune/config-file.js";
import { adviseKey } from "../finetune/foreign-flags.js";
import { type Flag, FLAGS } from "../options/flags.js";
import { UsageError } from "../terminal/failure.js";

/** The keys of the file that are options of the sweep alone. */
const OWN = ["space", "trials", "space-seed", "halving", "side-by-side"] as const;

type Own = Pick<SweepOptions, "space" | "trials" | "spaceSeed" | "halving" | "sideBySide">;

/** Returns a flag's key in a file: `batch-size`. */
function readKey({ flag }: Flag): string {
  return (/^--([\w-]+)/.exec(flag) as RegExpExecArray)[1] as string;
}

/** Returns the name in the space of a library option: `rank` for `lora.r`. */
export function nameInSpace(path: string): string {
  const flag = FLAGS.find((candidate) => candidate.path.join(".") === path);
  return flag === undefined ? path : readKey(flag);
}

/** Applies the common options of a file to the command, and returns the sweep's own. Throws `UsageError`. */
export async function applySweepFile(command: Command, file: string): Promise<Own> {
  const { space, trials, halving, ...rest } = await readConfig(file);
  const { "space-seed": spaceSeed, "side-by-side": sideBySide, ...common } = rest;
  const known = [...command.options.map(({ long }) => long?.slice(2) ?? ""), ...OWN].filter(
    (name) => name !== "config",
  );
  const other = Object.keys(common).find((key) => !known.includes(key));
  const advice = other === undefined ? undefined : adviseKey(command, other);
  if (advice !== undefined) throw new UsageError(`${file}: unknown key "${other}"; ${advice}`);
  if (other !== undefined)
    throw new UsageError(
      `${file}: unknown key "${other}"${didYouMean(other, known)}; known are ${known.join(", ")}`,
    );
  applyConfig(command, common, { file });
  if (space === undefined || space === null || (isPlain(space) && Object.keys(space).length === 0))
    throw new UsageError(
      `${file}: there is no space; give the values to compare, such as "space: {rank: [4, 8]}"`,
    );
  return {
    space: parseSpace(command, space, file),
    trials: readCount(trials, "trials", 1, file),
    spaceSeed: readCount(spaceSeed, "space-seed", 0, file),
    sideBySide: readCount(sideBySide, "side-by-side", 1, file),
    halving: readHalving(halving, file),
  };
}

function readCount(value: unknown, key: string, least: number, file: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  const fault = findFault(whole(least), value);
  if (fault !== undefined) throw new UsageError(`${file}: ${key} must ${fault}, got ${String(value)}`);
  return value as number;
}

function readHalving(value: unknown, file: string): Own["halving"] {
  if (value === undefined || value === null || value === false) return undefined;
  const keys = isPlain(value) ? Object.keys(value) : [];
  const other = keys.find((key) => key !== "every" && key !== "keep");
  if (!isPlain(value) || !keys.includes("every") || other !== undefined)
    throw new UsageError(
      `${file}: halving must have the key every, and may have keep, such as {every: 100, keep: 0.5}`,
    );
  return value as Own["halving"];
}

/** Returns the space by the library's names. */
function parseSpace(command: Command, given: unknown, file: string): Own["space"] {
  const where = `${file}: space`;
  if (!isPlain(given)) throw new UsageError(`${where} must have a list of values for each option`);
  const space: Record<string, unknown> = {};
  for (const [key, values] of Object.entries(given as Record<string, unknown>)) {
    const flag = FLAGS.find((candidate) => readKey(candidate) === key);
    if (flag === undefined) {
      const advice = adviseKey(command, key);
      if (advice !== undefined) throw new UsageError(`${where}: unknown key "${key}"; ${advice}`);
      const known = SPACE_OPTIONS.map(nameInSpace).filter((name) => !name.includes("."));
      throw new UsageError(
        `${where}: unknown key "${key}"${didYouMean(key, known)}; known are ${known.join(", ")}`,
      );
    }
    const option = command.options.find(({ long }) => long === `--${key}`);
    const parsed =
      Array.isArray(values) && option !== undefined
        ? values.map((value) => parseValue(option, value, where))
        : values;
    const [first = "", second] = flag.path;
    space[first] = second === undefined ? parsed : { ...(space[first] as object), [second]: parsed };
  }
  return space as Own["space"];
}
