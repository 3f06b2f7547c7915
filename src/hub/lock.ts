/** A lock by which only one process at a time downloads a file; others wait and then find the file. */
import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";

import { readSystemCode } from "../errors.js";
import { pause } from "./request.js";

/** Seconds between two updates of the lock file's time. */
const BEAT = 2;
/** Seconds without an update after which a lock counts as abandoned. */
const LEFT = 30;
/** Seconds between two attempts to acquire the lock. */
const LOOK = 0.2;

/**
 * Runs `work` while holding the lock `file`. The lock of a dead process is taken over: at once on the same machine,
 * otherwise after half a minute without an update. If the lock fails, a file is merely downloaded twice, because each
 * download has a separate file. Throws the signal's reason while waiting.
 */
export async function runWithLock<T>(
  file: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const text = JSON.stringify({ host: hostname(), pid: process.pid, token: randomBytes(8).toString("hex") });
  while (!(await createLockFile(file, text))) if (!(await removeStale(file))) await pause(LOOK, signal);
  const beat = setInterval(() => {
    const now = new Date();
    utimes(file, now, now).catch(() => {});
  }, 1000 * BEAT);
  beat.unref();
  try {
    return await work();
  } finally {
    clearInterval(beat);
    if ((await readFile(file, "utf8").catch(() => "")) === text) await rm(file, { force: true });
  }
}

async function createLockFile(file: string, text: string): Promise<boolean> {
  try {
    await writeFile(file, text, { flag: "wx" });
    return true;
  } catch (error) {
    if (readSystemCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Removes an abandoned lock; returns whether the lock is gone. */
async function removeStale(file: string): Promise<boolean> {
  const [text, state] = await Promise.all([
    readFile(file, "utf8").catch(() => undefined),
    stat(file).catch(() => undefined),
  ]);
  if (text === undefined || state === undefined) return true;
  if (Date.now() - state.mtimeMs < 1000 * LEFT && !isDead(text)) return false;
  // Renamed first, so that the removed file is the inspected one, even if another process has replaced it meanwhile.
  const aside = `${file}.${randomBytes(4).toString("hex")}`;
  await rename(file, aside).catch(() => {});
  const content = await readFile(aside, "utf8").catch(() => undefined);
  if (content !== undefined && content !== text) await link(aside, file).catch(() => {});
  await rm(aside, { force: true });
  return true;
}

/** Whether a lock belongs to a process of this machine that has ended. */
function isDead(text: string): boolean {
  try {
    const { host, pid } = JSON.parse(text) as { host?: unknown; pid?: unknown };
    if (host !== hostname() || typeof pid !== "number") return false;
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return readSystemCode(error) === "ESRCH";
  }
}
