/** The command in a child process, and the mishaps that can happen to it. */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";

import type { TrainEvent } from "../../../src/index.js";
import { CLI } from "../../programs.js";

/** The script to run: the command line as it is compiled for tests, or a build if one is named. */
const MAIN = process.env["LOWRANK_MAIN"] ?? CLI;

export type Mishap =
  | { kind: "none" }
  /** Signals, each a number of milliseconds after the start or, with `line`, after that line of stdout. */
  | { kind: "signal"; signals: { signal: NodeJS.Signals; after: number }[]; line?: number }
  /** The reader of standard output stops after a number of lines. */
  | { kind: "closed"; line: number }
  /** Standard output is a full disk. */
  | { kind: "full stdout" }
  /** The size of files is limited to this many blocks of 512 or 1,024 bytes. */
  | { kind: "limit"; blocks: number };

export interface Ended {
  status: number | null;
  signal: NodeJS.Signals | null;
  events: TrainEvent[];
  stdout: string;
  stderr: string;
  ms: number;
}

export interface Child {
  pid: number;
  ended: Promise<Ended>;
  kill(signal: NodeJS.Signals): void;
}

export function start(argv: readonly string[], mishap: Mishap = { kind: "none" }): Child {
  const began = performance.now();
  const command = [process.execPath, MAIN, ...argv];
  const limited = mishap.kind === "limit" ? `ulimit -f ${mishap.blocks}; exec "$@"` : undefined;
  const [program, ...rest] = limited === undefined ? command : ["sh", "-c", limited, "sh", ...command];
  const full = mishap.kind === "full stdout" ? openSync("/dev/full", "w") : undefined;
  const child = spawn(program as string, rest, { stdio: ["ignore", full ?? "pipe", "pipe"] });
  if (full !== undefined) closeSync(full);
  let [stdout, stderr, lines] = ["", "", 0];
  const timers: NodeJS.Timeout[] = [];
  const strike = (): void => {
    if (mishap.kind !== "signal") return;
    for (const { signal, after } of mishap.signals) timers.push(setTimeout(() => child.kill(signal), after));
  };
  if (mishap.kind === "signal" && mishap.line === undefined) strike();
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    const before = lines;
    lines += text.split("\n").length - 1;
    const at = "line" in mishap ? mishap.line : undefined;
    if (at === undefined || before >= at || lines < at) return;
    if (mishap.kind === "closed") child.stdout?.destroy();
    else strike();
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status, signal) => {
      for (const timer of timers) clearTimeout(timer);
      const events = stdout
        .split("\n")
        .slice(0, -1)
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line) as TrainEvent);
      resolve({ status, signal, events, stdout, stderr, ms: performance.now() - began });
    });
  });
  return { pid: child.pid as number, ended, kill: (signal) => void child.kill(signal) };
}
