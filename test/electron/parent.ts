/**
 * Forks a server, starts the run that its argument describes, and prints the fork's process id after the second
 * step.
 */
import type { ChildProcess } from "node:child_process";

import { connect, type RemoteFinetuneOptions } from "../../src/electron/index.js";
import { start } from "./hosts.js";

const { port } = start("fork");
const run = connect(port).finetune(JSON.parse(process.argv[2] as string) as RemoteFinetuneOptions);
for await (const event of run)
  if (event.type === "step" && event.step === 2) console.log((port as ChildProcess).pid);
