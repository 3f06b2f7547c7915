import { Command } from "commander";
import { LowrankError } from "../errors.js";
import { runsTable } from "./runs-table.js";

interface Flags {
  json?: boolean | undefined;
}

export function runsCommand(): Command {
  return new Command("runs")
    .description("the runs of a folder, running or ended, here or copied from elsewhere: a table")
    .argument("[folder]", "an output folder, or one that holds several", ".")
    .option("--json", "one run a line, as JSON")
    .action(async (folder: string, { json }: Flags) => {
      const { RunFinder } = await import("../runs/find.js");
      const { runs, notices } = await new RunFinder(folder).find();
      for (const notice of notices) process.stderr.write(`lowrank: warning: ${notice}\n`);
      if (runs.length === 0) {
        const what = "holds no run: there is no events.jsonl in it, nor in the folders below";
        throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: ${what}`);
      }
      if (json) for (const run of runs) process.stdout.write(`${JSON.stringify(run)}\n`);
      else process.stdout.write(runsTable(runs));
    });
}
