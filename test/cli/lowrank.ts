/** Runs the command line: in this process, or in one of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

import { runCli } from "../../src/cli/program.js";
import type { TrainEvent } from "../../src/train/events.js";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const signalAt = new URL("signal-at.mjs", import.meta.url).href;

export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** A command line with these options for those that are not given; the command line refuses an option given twice. */
export function withDefaults(argv: readonly string[], defaults: Readonly<Record<string, string>>): string[] {
  const missing = Object.entries(defaults).filter(([name]) => !argv.includes(`--${name}`));
  return [...argv, ...missing.flatMap(([name, value]) => [`--${name}`, value])];
}

/** What every failure looks like on stderr. */
export const ONE_LINE = /^lowrank: [^\n]+\n$/;

/** Runs a command in this process and gives its status and what it wrote; one at a time. */
export async function runHere(...argv: string[]): Promise<Ended> {
  const streams = { stdout: "", stderr: "" };
  const real = { stdout: process.stdout.write, stderr: process.stderr.write };
  for (const name of ["stdout", "stderr"] as const) {
    process[name].write = ((text: string) => {
      streams[name] += text;
      return true;
    }) as typeof process.stdout.write;
  }
  try {
    return { status: await runCli(argv), ...streams };
  } finally {
    process.stdout.write = real.stdout;
    process.stderr.write = real.stderr;
  }
}

/**
 * Runs a command in a process of its own, which gets `signal` as it tells of its first event of that kind; `watch` sees each
 * line of stdout as it comes, and `errors` what has come of stderr. `shell` is what a shell does before it becomes that
 * process, such as `ulimit`.
 */
export function lowrank(
  argv: string[],
  {
    watch,
    errors,
    signal,
    env = {},
    shell,
  }: {
    watch?: (line: string, child: ChildProcess) => void;
    errors?: (stderr: string, child: ChildProcess) => void;
    signal?: [name: NodeJS.Signals, at: TrainEvent["type"]];
    env?: NodeJS.ProcessEnv;
    shell?: string;
  } = {},
): Promise<Ended> {
  const before = signal === undefined ? [] : [`--import=${signalAt}`];
  const command = [process.execPath, "--import=tsx", ...before, main, ...argv];
  const wrapped = shell === undefined ? command : ["sh", "-c", `${shell}; exec "$@"`, "sh", ...command];
  return new Promise((resolve, reject) => {
    const child = spawn(wrapped[0] as string, wrapped.slice(1), {
      env: { ...process.env, ...env, ...(signal && { LOWRANK_SIGNAL_AT: signal.join(" ") }) },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    let seen = 0;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      const lines = stdout.split("\n").slice(0, -1);
      for (const line of lines.slice(seen)) watch?.(line, child);
      seen = lines.length;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
      errors?.(stderr, child);
    });
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}
