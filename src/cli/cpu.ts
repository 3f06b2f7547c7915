/** Options for the use of the processor. */
import { type Command, Option } from "commander";

import type { Priority } from "../device/cpu-use.js";
import * as value from "./values.js";

/** The parsed options. */
export interface CpuFlags {
  threads?: number | undefined;
  priority?: Priority | undefined;
}

/** Declares `--threads` and `--priority`. */
export function cpuOptions(command: Command): Command {
  return command
    .option(
      "--threads <n>",
      "the maximum number of computing threads on the CPU; default: one per core",
      value.count,
    )
    .addOption(
      new Option(
        "--priority <priority>",
        "background leaves one core free and lets other programs run first; default: normal",
      ).choices(["normal", "background"]),
    );
}

/** Declares `cpuOptions` and applies them to everything that the command does. */
export function cpuUseOptions(command: Command): Command {
  return cpuOptions(command).hook("preAction", async () => {
    const { threads, priority } = command.opts<CpuFlags>();
    if (threads === undefined && priority === undefined) return;
    const [{ checkCpuUse }, { setCpuUse }] = await Promise.all([
      import("../device/cpu-use.js"),
      import("../tensor/scope.js"),
    ]);
    setCpuUse(checkCpuUse(command.name(), { threads, priority }));
  });
}
