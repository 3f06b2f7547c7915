/** The flags of `finetune`, from the table of its options. */
import { type Command, Option } from "commander";

import { type AnyOption, isGroup, type Option as Entry, type Table } from "../../train/options/entry.js";
import { findFault, type Kind, type KindName } from "../../train/options/kinds.js";
import { OPTIONS } from "../../train/options/table.js";
import * as value from "./values.js";

/** An option with a flag. */
export interface Flag {
  /** The path of the library's option: `["optimizer", "lr"]`. */
  readonly path: readonly string[];
  /** Commander's name of the flag's value: `gradAccum` for `--grad-accum <n>`. */
  readonly attribute: string;
  readonly flag: string;
  readonly entry: AnyOption;
}

/** `gradAccum` of `grad-accum`. */
type Camel<Name extends string> = Name extends `${infer First}-${infer Rest}`
  ? `${First}${Capitalize<Camel<Rest>>}`
  : Name;

/** `gradAccum` of `--grad-accum <n>`. */
type Attribute<Flag> = Flag extends `--${infer Name} ${string}`
  ? Camel<Name>
  : Flag extends `--${infer Name}`
    ? Camel<Name>
    : never;

/** Whether a flag always has a value: it takes one, and has a default. */
type AlwaysSet<Flag, Default> = Flag extends `${string} <${string}>`
  ? undefined extends Default
    ? false
    : true
  : false;

/** The values of the flags of some options. */
type FlagsOf<Entries> = {
  -readonly [
    Name in keyof Entries as Entries[Name] extends Entry<unknown, unknown, infer Flag, infer Default>
      ? AlwaysSet<Flag, Default> extends true
        ? Attribute<Flag>
        : never
      : never
  ]: TextOf<Entries[Name]>;
} & {
  -readonly [
    Name in keyof Entries as Entries[Name] extends Entry<unknown, unknown, infer Flag, infer Default>
      ? AlwaysSet<Flag, Default> extends true
        ? never
        : Attribute<Flag>
      : never
  ]?: TextOf<Entries[Name]> | undefined;
};

type TextOf<One> = One extends { readonly kind: Kind<unknown, infer Text> } ? Text : never;

type Options = typeof OPTIONS;

/** The parsed flags. */
export type Flags = FlagsOf<Options> &
  FlagsOf<Options["lora"]["fields"]> &
  FlagsOf<Options["optimizer"]["fields"]> & {
    config?: string | undefined;
    json?: boolean | undefined;
  };

function listFlags(table: Table, group: readonly string[] = []): Flag[] {
  return Object.entries(table).flatMap(([name, entry]) => {
    const path = [...group, name];
    if (isGroup(entry)) return listFlags(entry.fields, path);
    if (entry.flag === undefined) return [];
    return [{ path, attribute: new Option(entry.flag).attributeName(), flag: entry.flag, entry }];
  });
}

/** The flags, in the order of `--help`. */
export const FLAGS: readonly Flag[] = listFlags(OPTIONS);

/** The parsers of kinds that are not read as they are. */
const PARSERS: Partial<Record<KindName, (text: string, before: never) => unknown>> = {
  files: value.collect,
  names: value.parseList,
  targets: value.parseTargets,
  initialisation: value.parseInit,
  interval: value.parseSaveEvery,
  size: value.parseMemory,
  devices: value.parseDevices,
  shares: value.parseShares,
};

/** Returns the parser of a flag's text; undefined if the text is the value. */
function selectParser(
  { kind, onCommandLine = kind }: AnyOption,
  takesValue: boolean,
): ((text: string, before: never) => unknown) | undefined {
  if (kind.name === "flag" && takesValue) return value.parseBoolean;
  const isNumber = onCommandLine.name === "number" || onCommandLine.name === "port";
  return isNumber
    ? value.createNumberParser((given) => findFault(onCommandLine, given))
    : PARSERS[onCommandLine.name];
}

/** Makes the flag of one option. */
export function makeFlag({ flag, entry }: Flag): Option {
  const option = new Option(flag, entry.help);
  if (entry.kind.choices !== undefined) option.choices(entry.kind.choices);
  const parser = selectParser(entry, option.required);
  if (parser !== undefined) option.argParser(parser as (text: string, before: unknown) => unknown);
  if (entry.default !== undefined && option.required) option.default(entry.default);
  return option;
}

/** Makes the flag of the option with this library name, for another command that has the same flag. */
export function makeFlagByName(name: keyof Options): Option {
  return makeFlag(FLAGS.find(({ path }) => path.join(".") === name) as Flag);
}

/** Declares the options of `finetune` on a command, without those whose library names are in `without`. */
export function declareFlags(command: Command, without: readonly string[] = []): Command {
  for (const flag of FLAGS) if (!without.includes(flag.path.join("."))) command.addOption(makeFlag(flag));
  return command
    .option("--config <file>", "read options from a YAML file; the command line overrides them")
    .option("--json", "print one JSON object per event");
}
