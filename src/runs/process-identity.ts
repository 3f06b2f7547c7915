/** Identifies a process, and distinguishes it from a later process with the same number. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";

export interface ProcessIdentity {
  pid: number;
  host: string;
  /** The start of the process, as the system reports it. */
  started: string;
}

/** The tolerance between two readings of the same start, which are rounded to seconds. */
const ROUNDING_MS = 2500;

export function identifyProcess(): ProcessIdentity {
  const started = Math.round(Date.now() - process.uptime() * 1000);
  return { pid: process.pid, host: hostname(), started: readStart(process.pid) ?? String(started) };
}

/** Whether the process is still running; undefined if it is on another host. */
export function isRunning({ pid, host, started }: ProcessIdentity): boolean | undefined {
  if (host !== hostname()) return undefined;
  if (!isAlive(pid)) return false;
  if (process.platform === "linux") {
    const current = readStart(pid);
    return current !== undefined && current === started;
  }
  // Another program reports the start. If there is none, a process with the same number counts as the same process.
  const current = askStart(pid);
  return current === undefined || Math.abs(current - Number(started)) < ROUNDING_MS;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** On Linux, returns the boot ID and the start in clock ticks; undefined for a process that has ended, reaped or not. */
function readStart(pid: number): string | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in parentheses may contain anything. The state follows it, and the start is the 20th field from there.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[0] === "Z" || fields[0] === "X") return undefined;
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot}/${fields[19]}`;
  } catch {
    return undefined;
  }
}

/** Asks another program for the start of a process, in milliseconds since 1970. */
function askStart(pid: number): number | undefined {
  const [program, args] =
    process.platform === "win32"
      ? ["powershell", ["-NoProfile", "-Command", `(Get-Process -Id ${pid}).StartTime.ToString('o')`]]
      : ["ps", ["-o", "lstart=", "-p", String(pid)]];
  const { stdout } = spawnSync(program as string, args as string[], {
    encoding: "utf8",
    timeout: 10_000,
    windowsHide: true,
    env: { ...process.env, LC_ALL: "C" },
  });
  const time = Date.parse((stdout ?? "").trim());
  return Number.isNaN(time) ? undefined : time;
}
