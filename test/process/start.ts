/** Runs whole processes of `child.ts`. */
import { spawn } from "node:child_process";

import { temporary } from "../hashed.js";
import { programPath } from "../programs.js";

const CHILD = programPath("test/process/child");
const folder = temporary();
/**
 * The environment of children, whose temporary folders are inside one of this process, since a killed child removes
 * none.
 */
export const ENV = { ...process.env, TMPDIR: folder, TEMP: folder };

/** The end and the output of a process. */
export interface Ended {
  status: number | null;
  signal: NodeJS.Signals | null;
  output: string;
  errors: string;
  ms: number;
}

/** Runs `child.ts` to its end. */
export function run(args: string[], env: Record<string, string> = {}): Promise<Ended> {
  const began = performance.now();
  const child = spawn(process.execPath, [CHILD, ...args], {
    env: { ...ENV, ...env },
  });
  let [output, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  return new Promise((resolve) => {
    child.on("close", (status, signal) =>
      resolve({ status, signal, output, errors, ms: performance.now() - began }),
    );
  });
}
