/** One run at a time writes into an output folder. */
import { randomUUID } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { link, lstat, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { LowrankError, systemCode } from "../../errors.js";
import { isRunning, thisProcess, type ProcessIdentity } from "../../runs/process-identity.js";
import { hold, isHeld, letGo } from "./thread-locks.js";

/** How often a lock that Windows lets nobody read is looked at, and milliseconds between. */
const TRIES = 50;
const PAUSE = 20;

/** The lock's name in the folder. */
export const LOCK = "run.lock";

interface Holder extends ProcessIdentity {
  token: string;
  /** Which copy of the engine in that process keeps account of the token. */
  copy?: string | undefined;
}

/** Locks that this process holds, for its end. */
const held = new Set<OutputLock>();

function leave(): void {
  for (const lock of held) lock.leave();
}

/**
 * A file that names the process which writes into a folder. One that a dead process has left is taken over, also where
 * its number belongs to another process by now: the start of the process is recorded, too. So is one of a thread of this
 * process that was terminated.
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

  /** Throws `ERR_OUTPUT_EXISTS` where another run holds it, and what the system says where it cannot be written. */
  static async take(folder: string): Promise<OutputLock> {
    const file = join(folder, LOCK);
    const token = randomUUID();
    const holder: Holder = { ...thisProcess(), token, copy: hold(token) };
    const text = `${JSON.stringify(holder)}\n`;
    const own = `${file}.${token}`;
    try {
      await writeFile(own, text, { flag: "wx" });
      for (let tries = 0; !(await placed(own, file, text)); tries++)
        await removeStale(folder, file, token, tries);
    } catch (error) {
      letGo(token);
      throw error;
    } finally {
      await rm(own, { force: true });
    }
    const lock = new OutputLock(file, text, token);
    if (held.size === 0) process.on("exit", leave);
    held.add(lock);
    return lock;
  }

  /** Whether it is still this run's; somebody may have removed the file. */
  async held(): Promise<boolean> {
    return (await readFile(this.#file, "utf8").catch(() => "")) === this.#text;
  }

  async release(): Promise<void> {
    held.delete(this);
    if (held.size === 0) process.off("exit", leave);
    if (await this.held()) await rm(this.#file, { force: true });
    letGo(this.#token);
  }

  /** The same at the end of the process, when nothing can be awaited. */
  leave(): void {
    try {
      if (readFileSync(this.#file, "utf8") === this.#text) rmSync(this.#file, { force: true });
    } catch {
      // A lock that stays is known to be a dead process's.
    }
  }
}

/** Gives the lock its name with its content at once, unless there is one; by a link, where the file system has them. */
async function placed(own: string, file: string, text: string): Promise<boolean> {
  try {
    await link(own, file);
    return true;
  } catch (error) {
    if (systemCode(error) === "EEXIST") return false;
  }
  try {
    await writeFile(file, text, { flag: "wx" });
    return true;
  } catch (error) {
    if (systemCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Removes the lock of a dead process or thread. Throws `ERR_OUTPUT_EXISTS` for any other. */
async function removeStale(folder: string, file: string, token: string, tries: number): Promise<void> {
  const found = await contentOf(file, tries);
  if (found === undefined) return;
  const holder = holderOf(found);
  if (holder === undefined) {
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${file}: is no lock of a run; move it away, or choose another folder`,
    );
  }
  const running = isRunning(holder);
  const own = holder.pid === process.pid && running === true;
  if (running !== false && !(own && !(await isHeld(holder.token, holder.copy)))) {
    const where = running === undefined ? ` on ${holder.host}` : "";
    const rest = running === undefined ? `; if it has ended, remove ${file}` : "";
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${folder}: another run, process ${holder.pid}${where}, writes here; wait for it, stop it, or choose another folder${rest}`,
    );
  }
  // Taken aside first: what is removed is then what was looked at, even if another run has taken it over meanwhile.
  const aside = `${file}.stale-${token}`;
  await rename(file, aside).catch(() => {});
  const taken = await readFile(aside, "utf8").catch(() => undefined);
  if (taken !== undefined && taken !== found) await link(aside, file).catch(() => {});
  await rm(aside, { force: true });
}

/**
 * What a lock says; undefined where there is none any more. Throws `ERR_OUTPUT_EXISTS` for what is there and cannot be
 * read: the file of another user, a folder, a link to nothing.
 */
async function contentOf(file: string, tries: number): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const code = systemCode(cause);
    const isLink = async (): Promise<boolean> =>
      (await lstat(file).catch(() => undefined))?.isSymbolicLink() === true;
    if (code === "ENOENT" && !(await isLink())) return undefined;
    // Windows lets nobody read a file that is being removed.
    if (process.platform === "win32" && (code === "EPERM" || code === "EBUSY") && tries < TRIES) {
      await pause(PAUSE);
      return undefined;
    }
    throw new LowrankError(
      "ERR_OUTPUT_EXISTS",
      `${file}: cannot be read (${code ?? String(cause)}), so that a run may write here; move it away, or choose another folder`,
      { cause },
    );
  }
}

function holderOf(text: string): Holder | undefined {
  try {
    const { pid, host, started, token, copy } = JSON.parse(text) as Partial<Holder>;
    if (!Number.isSafeInteger(pid) || [host, started, token].some((one) => typeof one !== "string")) return;
    return { pid, host, started, token, copy } as Holder;
  } catch {
    return undefined;
  }
}
