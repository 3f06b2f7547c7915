/** Maps the library's option names to a command's flags, or to the keys of its YAML file, for messages. */
import type { Command } from "commander";
import { PLACES } from "./places.js";

/** Options of other commands than finetune whose flags have other names, by commander's attribute name. */
const OTHERS: Readonly<Record<string, string>> = { maxNewTokens: "maxTokens", maxShardBytes: "maxShardSize" };

/** Library options, with and without the name of their group, mapped to commander's attribute names. */
const FLAGS: ReadonlyMap<string, string> = new Map([
  ...Object.entries(OTHERS),
  ...Object.entries(PLACES).flatMap(([flag, place]) => [
    [place.at(-1) as string, flag] as const,
    [place.join("."), flag] as const,
  ]),
]);

/**
 * Returns the name of a library option in `command`: `--batch-size`, or ``batch-size in run.yaml`` if it came from a
 * file; undefined if the command has no such option.
 */
export function findFlag(command: Command, option: string): string | undefined {
  const attribute = FLAGS.get(option) ?? option;
  const flag = command.options.find((candidate) => candidate.attributeName() === attribute)?.long;
  if (flag === undefined || flag === null) return undefined;
  const { config } = command.opts<{ config?: string }>();
  const fromFile = command.getOptionValueSource(attribute) === "config" && config !== undefined;
  return fromFile ? `${flag.slice(2)} in ${config}` : flag;
}
