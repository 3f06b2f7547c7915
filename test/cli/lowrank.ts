/** Runs the command line: in this process, or in a child process. */
import { type ChildProcess, spawn } from "node:child_process";

import { runCli } from "../../src/cli/program.js";
import type { TrainEvent } from "../../src/train/events.js";
import { CLI } from "../programs.js";

const signalAt = new URL("signal-at.mjs", import.meta.url).href;

export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Adds default options to a command line, except those it has, since an option given twice is refused. */
export function withDefaults(argv: readonly string[], defaults: Readonly<Record<string, string>>): string[] {
  const missing = Object.entries(defaults).filter(([name]) => !argv.includes(`--${name}`));
  return [...argv, ...missing.flatMap(([name, value]) => [`--${name}`, value])];
}

/** The form of every failure on stderr. */
export const ONE_LINE = /^lowrank: [^\n]+\n$/;

/** Runs a command in this process and returns its status and output; one command at a time. */
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
 * Runs a command in a child process, which gets `signal` when it reports the first event of that kind; `watch` gets
 * each line of stdout, and `errors` the stderr so far. `shell` is a shell command that runs before, such as
 * `ulimit`.
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
  const command = [process.execPath, ...before, CLI, ...argv];
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
