/** What self-tests found, kept in the user's cache folder by adapter, driver and version of the package. */
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";

import { cacheFolder } from "../cache-folder.js";

/** Raised when the form of the file or the meaning of a result changes. */
const FORMAT = 1;
/** Bytes of a file that is read at most. */
const LIMIT = 64 * 1024;

/** Whose result it is. Another driver or another version of the package may compile other code. */
export interface Owner {
  adapter: string;
  backend: string;
  driver: string;
  package: string;
}

/** A result. */
export interface Kept {
  passed: boolean;
  /** Whether it was the full test. */
  full: boolean;
  /** Why it failed. */
  reason?: string | undefined;
  /** When it stops to count, in milliseconds since 1970; never unless given. */
  until?: number | undefined;
}

function fileOf(owner: Owner): string | undefined {
  const folder = cacheFolder();
  if (folder === undefined) return undefined;
  const parts = [owner.adapter, owner.backend, owner.driver, owner.package];
  const name = owner.adapter
    .toLowerCase()
    .replaceAll(/[^a-z0-9.]+/g, "_")
    .slice(0, 40);
  const hash = createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 16);
  return join(folder, "self-test", `${name}-${hash}.json`);
}

/** What is kept of an owner; undefined of a file that is not there, damaged, or of another owner. */
export function readKept(owner: Owner): Kept | undefined {
  const file = fileOf(owner);
  if (file === undefined) return undefined;
  try {
    const about = statSync(file);
    if (!about.isFile() || about.size > LIMIT) return undefined;
    const { format, of, passed, full, reason, until } = JSON.parse(readFileSync(file, "utf8")) as {
      format: number;
      of: Owner;
    } & Kept;
    const same = (["adapter", "backend", "driver", "package"] as const).every(
      (part) => of[part] === owner[part],
    );
    if (format !== FORMAT || !same || typeof passed !== "boolean") return undefined;
    if (until !== undefined && !(Date.now() < until)) return undefined;
    return { passed, full: full === true, reason: typeof reason === "string" ? reason : undefined };
  } catch {
    return undefined;
  }
}

/** Keeps a result; where that fails, the test is run again some day. */
export function keep(owner: Owner, result: Kept): void {
  const file = fileOf(owner);
  if (file === undefined) return;
  const aside = `${file}.${process.pid}.part`;
  try {
    mkdirSync(join(file, ".."), { recursive: true });
    writeFileSync(aside, `${JSON.stringify({ format: FORMAT, of: owner, ...result }, undefined, 2)}\n`);
    renameSync(aside, file);
  } catch {
    removeQuietly(aside);
  }
}

function removeQuietly(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // It was not made: what should be a folder is a file.
  }
}
