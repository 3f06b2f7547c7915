/** Advice about flags and keys of files that another library has under another name. */
import { type Command, CommanderError, type Option } from "commander";
import { adviseOption, findForeignName } from "../../arguments/foreign-name.js";
import { findFlag } from "./option-names.js";

/** Returns the option of a command; undefined if it lacks the option. `path` is the library's, such as `optimizer.lr`. */
function findOption(command: Command, path: string): Option | undefined {
  const flag = findFlag(command, path)?.split(" ")[0]?.replace(/^--/, "");
  return command.options.find(({ long }) => long === `--${flag}`);
}

/** Returns the error about an unknown flag with the flag that does the same; any other error as it is. */
export function adviseUnknownFlag(command: Command, error: CommanderError): CommanderError {
  const [, name] = /^error: unknown option '--([\w-]+)/.exec(error.message) ?? [];
  if (error.code !== "commander.unknownOption" || name === undefined) return error;
  const found = findForeignName(name, (path) => findOption(command, path) !== undefined);
  if (found === undefined) return error;
  const { flags, long } = findOption(command, found.option) as Option;
  const example = found.example === undefined ? undefined : `${long} ${found.example}`;
  return new CommanderError(
    error.exitCode,
    error.code,
    `unknown option '--${name}'; ${adviseOption(flags, found, example)}`,
  );
}

/** Returns the advice about an unknown key of a file; undefined if no library has such a name. */
export function adviseKey(command: Command, key: string): string | undefined {
  const found = findForeignName(key, (path) => findOption(command, path) !== undefined);
  if (found === undefined) return undefined;
  const name = (findOption(command, found.option) as Option).long?.slice(2) as string;
  if (name === key) return undefined;
  return adviseOption(name, found, `"${name}: ${found.example ?? "true"}"`);
}
