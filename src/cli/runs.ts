import { Command } from "commander";
import { LowrankError } from "../errors.js";
import { escapeAll, formatJsonLine } from "./terminal/escaped.js";
import { createMisuse, warn } from "./terminal/failure.js";
import { COMMAND_LINE_REFUSALS } from "../refusals/command-line.js";
import { runInterruptible } from "./terminal/interrupt.js";
import { formatRuns } from "./runs-table.js";
import * as value from "./options/values.js";

interface Flags {
  dashboard?: boolean | number | undefined;
  json?: boolean | undefined;
}

export function createRunsCommand(): Command {
  return new Command("runs")
    .description("list the runs in a folder, running or ended, as a table")
    .argument("[folder]", "an output folder, or a folder with several", ".")
    .option("--dashboard [port]", "serve a page that compares the runs, until Ctrl-C", value.parsePort)
    .option("--json", "print one JSON object per run")
    .action(async (folder: string, { dashboard, json }: Flags) => {
      if (dashboard !== undefined && json) throw createMisuse(COMMAND_LINE_REFUSALS.dashboardAsJson);
      const { RunFinder } = await import("../runs/find.js");
      const { runs, notices } = await new RunFinder(folder).find();
      for (const notice of notices) warn(notice);
      if (runs.length === 0) {
        const what = "holds no run: there is no events.jsonl in it, nor in the folders below";
        throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: ${what}`);
      }
      if (dashboard !== undefined) return serve(folder, dashboard === true ? 0 : Number(dashboard));
      if (json) for (const run of runs) process.stdout.write(`${formatJsonLine(run)}\n`);
      else process.stdout.write(formatRuns(escapeAll(runs)));
    });
}

/** Serves the page until a signal arrives. */
async function serve(folder: string, port: number): Promise<void> {
  const { Dashboard } = await import("../dashboard/server.js");
  const { openFolderSource } = await import("../dashboard/sources.js");
  const dashboard = await Dashboard.open(openFolderSource(folder), { port, holds: true });
  process.stdout.write(`dashboard: ${dashboard.url}\n`);
  try {
    await runInterruptible(
      (signal) =>
        new Promise((_, reject) =>
          signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true }),
        ),
    );
  } finally {
    await dashboard.close();
  }
}
