/** Options for the use of the processor. */
import type { Command } from "commander";

import type { Priority } from "../../device/cpu-use.js";
import { makeFlagByName } from "./flags.js";

/** The parsed options. */
export interface CpuFlags {
  threads?: number | undefined;
  priority?: Priority | undefined;
}

/** Declares `--threads` and `--priority`. */
export function declareCpuOptions(command: Command): Command {
  return command.addOption(makeFlagByName("threads")).addOption(makeFlagByName("priority"));
}

/** Declares `declareCpuOptions` and applies them to everything that the command does. */
export function declareCpuUse(command: Command): Command {
  return declareCpuOptions(command).hook("preAction", async () => {
    const { threads, priority } = command.opts<CpuFlags>();
    if (threads === undefined && priority === undefined) return;
    const [{ checkCpuUse }, { setCpuUse }] = await Promise.all([
      import("../../device/cpu-use.js"),
      import("../../tensor/scope.js"),
    ]);
    setCpuUse(checkCpuUse(command.name(), { threads, priority }));
  });
}
