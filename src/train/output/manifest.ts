/** Records the size and SHA-256 of files, to detect damaged files before reading them. */
import { createHash } from "node:crypto";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";

export interface FileDigest {
  bytes: number;
  sha256: string;
}

/** Digests by file path within a folder, with "/" as the separator. */
export type Manifest = Record<string, FileDigest>;

/** Hashes a file in one pass, in pieces. */
export async function digestFile(file: string): Promise<FileDigest> {
  const hash = createHash("sha256");
  let bytes = 0;
  const handle = await open(file);
  try {
    for await (const piece of handle.createReadStream({ highWaterMark: 1 << 20, autoClose: false })) {
      hash.update(piece as Buffer);
      bytes += (piece as Buffer).length;
    }
  } finally {
    // A stream closes its file later, and Windows cannot rename a folder that contains an open file.
    await handle.close();
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** Returns the digests of all files in a folder and its subfolders. */
export async function digestFolder(folder: string): Promise<Manifest> {
  const manifest: Manifest = {};
  for (const name of await listFiles(folder)) manifest[name] = await digestFile(join(folder, name));
  return manifest;
}

/** Returns the paths of all files in a folder and its subfolders. */
export async function listFiles(folder: string, below = ""): Promise<string[]> {
  const entries = await readdir(join(folder, below), { withFileTypes: true });
  const found = await Promise.all(
    entries.map((entry) => {
      const name = below === "" ? entry.name : `${below}/${entry.name}`;
      return entry.isDirectory() ? listFiles(folder, name) : [name];
    }),
  );
  return found.flat().sort();
}

/** Whether a file exists with exactly this content. */
export async function matchesDigest(file: string, { bytes, sha256 }: FileDigest): Promise<boolean> {
  const size = await stat(file).then(
    (found) => (found.isFile() ? found.size : undefined),
    () => undefined,
  );
  return size === bytes && (await digestFile(file)).sha256 === sha256;
}

/** Describes the damage to the files of a folder; undefined if all are intact. */
export async function findDamage(folder: string, manifest: Manifest): Promise<string | undefined> {
  for (const [name, { bytes, sha256 }] of Object.entries(manifest)) {
    const size = await stat(join(folder, name)).then(
      (found) => found.size,
      () => undefined,
    );
    if (size === undefined) return `${name} is missing`;
    if (size !== bytes) return `${name} has ${size} bytes and was written with ${bytes}`;
    if ((await digestFile(join(folder, name))).sha256 !== sha256) return `${name} is not what was written`;
  }
  return undefined;
}

/** Returns a value as JSON with a checksum in it. */
export function sealJson(value: object): string {
  const text = JSON.stringify(value);
  const sha256 = createHash("sha256").update(text).digest("hex");
  return `${JSON.stringify({ ...value, sha256 }, null, 2)}\n`;
}

/** Parses such a text. Throws a `SyntaxError` if it is invalid or its checksum differs. */
export function parseSealed(text: string): object {
  const value = JSON.parse(text) as unknown;
  if (typeof value !== "object" || value === null) throw new SyntaxError("a JSON object was expected");
  const { sha256, ...rest } = value as Record<string, unknown>;
  if (sha256 === undefined) throw new SyntaxError("there is no checksum");
  if (createHash("sha256").update(JSON.stringify(rest)).digest("hex") !== sha256)
    throw new SyntaxError("the checksum differs: it was changed or damaged");
  return rest;
}

/** Flushes the names in a folder to the disk, if the system supports it. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
