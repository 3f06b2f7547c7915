/** How a command's messages call the library's options: by its flags, or by the keys of its YAML file. */
import type { Command } from "commander";
import { PLACES } from "./finetune/places.js";

/** Flags of other commands whose options have other names in the library; by the name that commander gives them. */
const OTHERS: Readonly<Record<string, string>> = { maxNewTokens: "maxTokens", maxShardBytes: "maxShardSize" };

/** The library's options, with and without the group that they are in, and the flags that give them. */
const FLAGS: ReadonlyMap<string, string> = new Map([
  ...Object.entries(OTHERS),
  ...Object.entries(PLACES).flatMap(([flag, place]) => [
    [place.at(-1) as string, flag] as const,
    [place.join("."), flag] as const,
  ]),
]);

/**
 * What `command` calls an option of the library: `--batch-size`, or ``batch-size in run.yaml`` where a file gave it;
 * undefined where it has none.
 */
export function flagOf(command: Command, option: string): string | undefined {
  const attribute = FLAGS.get(option) ?? option;
  const flag = command.options.find((one) => one.attributeName() === attribute)?.long;
  if (flag === undefined || flag === null) return undefined;
  const { config } = command.opts<{ config?: string }>();
  const fromFile = command.getOptionValueSource(attribute) === "config" && config !== undefined;
  return fromFile ? `${flag.slice(2)} in ${config}` : flag;
}
