/** Caches self-test results in the user's cache folder, by adapter, driver and package version. */
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";

import { findCacheFolder } from "../package/cache-folder.js";

/** Incremented when the file's format or the meaning of a result changes. */
const FORMAT = 1;
/** The maximum size of a file, in bytes. */
const LIMIT = 64 * 1024;

/** The key of a result. Another driver or package version may compile other code. */
export interface Owner {
  adapter: string;
  backend: string;
  driver: string;
  package: string;
}

/** A result. */
export interface CachedResult {
  passed: boolean;
  /** Whether it was the full test. */
  full: boolean;
  /** Why it failed. */
  reason?: string | undefined;
  /** When it expires, in milliseconds since 1970; by default never. */
  until?: number | undefined;
}

function resolveFile(owner: Owner): string | undefined {
  const folder = findCacheFolder();
  if (folder === undefined) return undefined;
  const parts = [owner.adapter, owner.backend, owner.driver, owner.package];
  const name = owner.adapter
    .toLowerCase()
    .replaceAll(/[^a-z0-9.]+/g, "_")
    .slice(0, 40);
  const hash = createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 16);
  return join(folder, "self-test", `${name}-${hash}.json`);
}

/** Returns the result for a key; undefined if the file is missing, damaged, expired or has another key. */
export function readKept(owner: Owner): CachedResult | undefined {
  const file = resolveFile(owner);
  if (file === undefined) return undefined;
  try {
    const about = statSync(file);
    if (!about.isFile() || about.size > LIMIT) return undefined;
    const { format, of, passed, full, reason, until } = JSON.parse(readFileSync(file, "utf8")) as {
      format: number;
      of: Owner;
    } & CachedResult;
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

/** Stores a result. A failure is ignored: the test then runs again. */
export function keep(owner: Owner, result: CachedResult): void {
  const file = resolveFile(owner);
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
    // The staging file does not exist, since a file is in the folder's place.
  }
}
