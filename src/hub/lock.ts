/** One process at a time fetches a file. Others wait for it, and find it there. */
import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";

import { systemCode } from "../errors.js";
import { pause } from "./request.js";

/** Seconds between two signs of life, and without one after which a lock counts as left. */
const BEAT = 2;
const LEFT = 30;
/** Seconds between two looks at another's lock. */
const LOOK = 0.2;

/**
 * Runs `work` while `file` is this process's. One that a dead process has left is taken over: at once on the same
 * machine, and after half a minute without a sign of life elsewhere. Where that goes wrong a file is fetched twice, and
 * no more: each fetches into a file of its own. Throws the signal's reason while it waits.
 */
export async function locked<T>(
  file: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const text = JSON.stringify({ host: hostname(), pid: process.pid, token: randomBytes(8).toString("hex") });
  while (!(await placed(file, text))) if (!(await removedStale(file))) await pause(LOOK, signal);
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

async function placed(file: string, text: string): Promise<boolean> {
  try {
    await writeFile(file, text, { flag: "wx" });
    return true;
  } catch (error) {
    if (systemCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Removes a lock that was left; whether there is none any more. */
async function removedStale(file: string): Promise<boolean> {
  const [text, state] = await Promise.all([
    readFile(file, "utf8").catch(() => undefined),
    stat(file).catch(() => undefined),
  ]);
  if (text === undefined || state === undefined) return true;
  if (Date.now() - state.mtimeMs < 1000 * LEFT && !isDead(text)) return false;
  // Taken aside first: what is removed is then what was looked at, also where another has taken it over meanwhile.
  const aside = `${file}.${randomBytes(4).toString("hex")}`;
  await rename(file, aside).catch(() => {});
  const taken = await readFile(aside, "utf8").catch(() => undefined);
  if (taken !== undefined && taken !== text) await link(aside, file).catch(() => {});
  await rm(aside, { force: true });
  return true;
}

/** Whether a lock's process was of this machine and has ended. */
function isDead(text: string): boolean {
  try {
    const { host, pid } = JSON.parse(text) as { host?: unknown; pid?: unknown };
    if (host !== hostname() || typeof pid !== "number") return false;
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return systemCode(error) === "ESRCH";
  }
}
