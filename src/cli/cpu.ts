/** How much of the processor a command uses. */
import { type Command, Option } from "commander";

import type { Priority } from "../cpu-use.js";
import * as value from "./values.js";

/** As commander hands them over. */
export interface CpuFlags {
  threads?: number | undefined;
  priority?: Priority | undefined;
}

/** Declares `--threads` and `--priority`. */
export function cpuOptions(command: Command): Command {
  return command
    .option(
      "--threads <n>",
      "most threads that compute on the cpu; one for each core unless given",
      value.count,
    )
    .addOption(
      new Option(
        "--priority <priority>",
        "background leaves one core free, and other programs run first; normal unless given",
      ).choices(["normal", "background"]),
    );
}

/** `cpuOptions`, which hold for all that the command does. */
export function cpuUseOptions(command: Command): Command {
  return cpuOptions(command).hook("preAction", async () => {
    const { threads, priority } = command.opts<CpuFlags>();
    if (threads === undefined && priority === undefined) return;
    const [{ checkCpuUse }, { setCpuUse }] = await Promise.all([
      import("../cpu-use.js"),
      import("../scope.js"),
    ]);
    setCpuUse(checkCpuUse(command.name(), { threads, priority }));
  });
}
