#!/usr/bin/env node
import { FAILED } from "./failure.js";
import { runCli } from "./program.js";

// A reader that has seen enough (`lowrank … | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  process.stderr.write(`lowrank: stdout cannot be written (${error.code ?? error.message})\n`);
  process.exit(FAILED);
});

process.exitCode = await runCli(process.argv.slice(2));
