#!/usr/bin/env node
import { runCli } from "./program.js";
import { watchStreams } from "./terminal/stdout.js";

watchStreams();
process.exitCode = await runCli(process.argv.slice(2));
