/** The lock of an output folder, into which only one run at a time may write. */
import { randomUUID } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { link, lstat, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { LowrankError, readSystemCode } from "../../errors.js";
import { isRunning, identifyProcess, type ProcessIdentity } from "../../runs/process-identity.js";
import { hold, isHeld, releaseToken } from "./thread-locks.js";

/** Retries for a lock file that Windows cannot read at the moment, and milliseconds between them. */
const TRIES = 50;
const PAUSE = 20;

/** The name of the lock file in the folder. */
export const LOCK = "run.lock";

interface Holder extends ProcessIdentity {
  token: string;
  /** The copy of the engine in that process that tracks the token. */
  copy?: string | undefined;
}

/** The locks that this process holds, to remove them when it exits. */
const heldLocks = new Set<OutputLock>();

function leaveLocks(): void {
  for (const lock of heldLocks) lock.leave();
}

/**
 * A file that names the process that writes into a folder. The lock of a dead process is taken over, even if another
 * process has its number by now, because the process's start time is recorded too. So is the lock of a terminated thread
 * of this process.
 */
export class OutputLock {
  readonly #file: string;
  readonly #text: string;
  readonly #token: string;

  private constructor(file: string, text: string, token: string) {
    this.#file = file;
    this.#text = text;
    this.#token = token;
  }

  /** Acquires the lock. Throws `ERR_OUTPUT_EXISTS` if another run holds it, and system errors if it cannot be written. */
  static async take(folder: string): Promise<OutputLock> {
    const file = join(folder, LOCK);
    const token = randomUUID();
    const holder: Holder = { ...identifyProcess(), token, copy: hold(token) };
    const text = `${JSON.stringify(holder)}\n`;
    const temporary = `${file}.${token}`;
    try {
      await writeFile(temporary, text, { flag: "wx" });
      for (let tries = 0; !(await createLockFile(temporary, file, text)); tries++)
        await removeStale(folder, file, token, tries);
    } catch (error) {
      releaseToken(token);
      throw error;
    } finally {
      await rm(temporary, { force: true });
    }
    const lock = new OutputLock(file, text, token);
    if (heldLocks.size === 0) process.on("exit", leaveLocks);
    heldLocks.add(lock);
    return lock;
  }

  /** Whether this run still holds the lock; the file may have been removed from outside. */
  async isHeld(): Promise<boolean> {
    return (await readFile(this.#file, "utf8").catch(() => "")) === this.#text;
  }

  async release(): Promise<void> {
    heldLocks.delete(this);
    if (heldLocks.size === 0) process.off("exit", leaveLocks);
    if (await this.isHeld()) await rm(this.#file, { force: true });
    releaseToken(this.#token);
  }

  /** Releases the lock synchronously, when the process exits. */
  leave(): void {
    try {
      if (readFileSync(this.#file, "utf8") === this.#text) rmSync(this.#file, { force: true });
    } catch {
      // A lock that remains is recognised as a dead process's.
    }
  }
}

/** Creates the lock file with its content atomically, by a hard link if the file system supports it. False if it exists. */
async function createLockFile(temporary: string, file: string, text: string): Promise<boolean> {
  try {
    await link(temporary, file);
    return true;
  } catch (error) {
    if (readSystemCode(error) === "EEXIST") return false;
  }
  try {
    await writeFile(file, text, { flag: "wx" });
    return true;
  } catch (error) {
    if (readSystemCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Removes the lock of a dead process or thread. Throws `ERR_OUTPUT_EXISTS` for any other. */
async function removeStale(folder: string, file: string, token: string, tries: number): Promise<void> {
  const found = await readContent(file, tries);
  if (found === undefined) return;
  const holder = parseHolder(found);
  if (holder === undefined) {
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${file}: is not a run's lock; move it away, or choose another folder`,
    );
  }
  const running = isRunning(holder);
  const isThisProcess = holder.pid === process.pid && running === true;
  if (running !== false && !(isThisProcess && !(await isHeld(holder.token, holder.copy)))) {
    const where = running === undefined ? ` on ${holder.host}` : "";
    const rest = running === undefined ? `; if it has ended, remove ${file}` : "";
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${folder}: another run, process ${holder.pid}${where}, writes here; wait for it, stop it, or choose another folder${rest}`,
    );
  }
  // Renamed first, so that the removed file is the inspected one, even if another run has replaced it meanwhile.
  const aside = `${file}.stale-${token}`;
  await rename(file, aside).catch(() => {});
  const content = await readFile(aside, "utf8").catch(() => undefined);
  if (content !== undefined && content !== found) await link(aside, file).catch(() => {});
  await rm(aside, { force: true });
}

/**
 * Returns the content of a lock; undefined if it no longer exists, or if Windows should retry. Throws
 * `ERR_OUTPUT_EXISTS` for an unreadable file: another user's, a folder, or a dangling link.
 */
async function readContent(file: string, tries: number): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const code = readSystemCode(cause);
    const isLink = async (): Promise<boolean> =>
      (await lstat(file).catch(() => undefined))?.isSymbolicLink() === true;
    if (code === "ENOENT" && !(await isLink())) return undefined;
    // Windows cannot read a file that is being removed.
    if (process.platform === "win32" && (code === "EPERM" || code === "EBUSY") && tries < TRIES) {
      await pause(PAUSE);
      return undefined;
    }
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${file}: cannot be read (${code ?? String(cause)}), and another run may write here; move it away, or choose another folder`,
      { cause },
    );
  }
}

function parseHolder(text: string): Holder | undefined {
  try {
    const { pid, host, started, token, copy } = JSON.parse(text) as Partial<Holder>;
    if (!Number.isSafeInteger(pid) || [host, started, token].some((field) => typeof field !== "string"))
      return;
    return { pid, host, started, token, copy } as Holder;
  } catch {
    return undefined;
  }
}
