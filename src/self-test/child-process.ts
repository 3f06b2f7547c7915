/** The process that tests a GPU, so that a driver that crashes or hangs ends only that process. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

import { resolveProgram } from "../package/files.js";
import { canRunScripts } from "./electron-fuse.js";
import { parseLines, type Line, type Order } from "./steps.js";

/** The end of a process, and its output. */
export interface Ended {
  lines: Line[];
  /** Why it ended early: a signal, an exit status or the time limit; undefined if it finished. */
  died: string | undefined;
  /** Whether the time limit ended it. */
  hung: boolean;
  /** Whether a user or the system ended it, for example by Ctrl-C: that says nothing about the GPU. */
  interrupted: boolean;
  /** The last lines of stderr, where drivers write. */
  stderr: string;
}

/** Signals that end any process from outside. SIGKILL is also sent when the system runs out of memory. */
const OUTSIDE = new Set(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGKILL"]);

/** The maximum length of stderr to keep. */
const STDERR = 2000;

function createCommand(order: Order): { file: string; args: string[]; env: NodeJS.ProcessEnv } {
  const script = resolveProgram("diagnose/child");
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    LOWRANK_SELF_TEST: "off",
    // Tests the default variants of the kernels.
    LOWRANK_TUNE: "off",
  };
  // Makes Electron's executable run as Node, for this process only.
  if (process.versions["electron"] !== undefined) env["ELECTRON_RUN_AS_NODE"] = "1";
  // Arguments of this process to Node, such as --inspect, are not passed on.
  return { file: process.execPath, args: [script, JSON.stringify(order)], env };
}

/**
 * Whether the process can be started. It cannot in a bundle, which lacks the script, or in an Electron app with the fuse
 * RunAsNode off, where the executable would start the app again.
 */
export function canStart(): boolean {
  try {
    return existsSync(resolveProgram("diagnose/child")) && canRunScripts();
  } catch {
    return false;
  }
}

function explainDeath(status: number | null, signal: string | null): string | undefined {
  if (signal !== null) return signal;
  // Windows reports a crash as a status such as 0xC0000005.
  if (status === null || status === 0) return undefined;
  return status > 255 || status < 0
    ? `status 0x${(status >>> 0).toString(16).toUpperCase()}`
    : `status ${status}`;
}

/**
 * Runs the process and calls `onLine` with each line. `limit` is the maximum time between two lines, in milliseconds.
 * Rejects if the process cannot be started, and with the signal's reason if it is aborted.
 */
export async function runChild(
  order: Order,
  limit: number,
  onLine: (line: Line) => void,
  signal?: AbortSignal,
): Promise<Ended> {
  const { file, args, env } = createCommand(order);
  const child = spawn(file, args, { env, stdio: ["ignore", "pipe", "pipe"], windowsHide: true });
  const lines: Line[] = [];
  let [buffered, stderr, hung] = ["", "", false];
  let watch: NodeJS.Timeout | undefined;
  const kill = (): void => void child.kill("SIGKILL");
  const restart = (): void => {
    clearTimeout(watch);
    watch = setTimeout(() => {
      hung = true;
      kill();
    }, limit);
  };
  restart();
  signal?.addEventListener("abort", kill, { once: true });
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const joined = `${buffered}${text}`;
    const end = joined.lastIndexOf("\n") + 1;
    buffered = joined.slice(end);
    for (const line of parseLines(joined.slice(0, end))) {
      restart();
      lines.push(line);
      onLine(line);
    }
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = `${stderr}${text}`.slice(-STDERR);
  });
  try {
    const [status, by] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, name) => resolve([code, name]));
    });
    signal?.throwIfAborted();
    const died = hung ? `no answer for ${Math.round(limit / 1000)} s` : explainDeath(status, by);
    return { lines, died, hung, interrupted: !hung && OUTSIDE.has(by ?? ""), stderr: stderr.trim() };
  } finally {
    clearTimeout(watch);
    signal?.removeEventListener("abort", kill);
  }
}

/** Runs the process and waits for at most `limit` milliseconds. Throws if it cannot be started. */
export function runChildSync(order: Order, limit: number): Ended {
  const { file, args, env } = createCommand(order);
  const { stdout, stderr, status, signal, error } = spawnSync(file, args, {
    env,
    stdio: ["ignore", "pipe", "pipe"],
    windowsHide: true,
    timeout: limit,
    killSignal: "SIGKILL",
    encoding: "utf8",
    maxBuffer: 1 << 24,
  });
  const hung = (error as NodeJS.ErrnoException | undefined)?.code === "ETIMEDOUT";
  if (error !== undefined && !hung) throw error;
  const died = hung ? `no end within ${Math.round(limit / 1000)} s` : explainDeath(status, signal);
  const interrupted = !hung && OUTSIDE.has(signal ?? "");
  return { lines: parseLines(stdout), died, hung, interrupted, stderr: stderr.slice(-STDERR).trim() };
}
