/** What files hold, by size and SHA-256, so that a damaged one is found before it is read. */
import { createHash } from "node:crypto";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";

export interface FileDigest {
  bytes: number;
  sha256: string;
}

/** Files by their path inside a folder, whose parts are divided by "/". */
export type Manifest = Record<string, FileDigest>;

/** Reads a file once, in pieces. */
export async function digestOf(file: string): Promise<FileDigest> {
  const hash = createHash("sha256");
  let bytes = 0;
  const handle = await open(file);
  try {
    for await (const piece of handle.createReadStream({ highWaterMark: 1 << 20, autoClose: false })) {
      hash.update(piece as Buffer);
      bytes += (piece as Buffer).length;
    }
  } finally {
    // A stream closes its file some time later, and Windows moves no folder of which one is open.
    await handle.close();
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** Every file in a folder and below it. */
export async function manifestOf(folder: string): Promise<Manifest> {
  const manifest: Manifest = {};
  for (const name of await filesOf(folder)) manifest[name] = await digestOf(join(folder, name));
  return manifest;
}

/** The paths of all files in a folder and below it. */
export async function filesOf(folder: string, below = ""): Promise<string[]> {
  const entries = await readdir(join(folder, below), { withFileTypes: true });
  const found = await Promise.all(
    entries.map((entry) => {
      const name = below === "" ? entry.name : `${below}/${entry.name}`;
      return entry.isDirectory() ? filesOf(folder, name) : [name];
    }),
  );
  return found.flat().sort();
}

/** Whether a file is there with just this content. */
export async function matches(file: string, { bytes, sha256 }: FileDigest): Promise<boolean> {
  const size = await stat(file).then(
    (found) => (found.isFile() ? found.size : undefined),
    () => undefined,
  );
  return size === bytes && (await digestOf(file)).sha256 === sha256;
}

/** What is wrong with the files of a folder; undefined where each is as it was written. */
export async function damageOf(folder: string, manifest: Manifest): Promise<string | undefined> {
  for (const [name, { bytes, sha256 }] of Object.entries(manifest)) {
    const size = await stat(join(folder, name)).then(
      (found) => found.size,
      () => undefined,
    );
    if (size === undefined) return `${name} is missing`;
    if (size !== bytes) return `${name} has ${size} bytes and was written with ${bytes}`;
    if ((await digestOf(join(folder, name))).sha256 !== sha256) return `${name} is not what was written`;
  }
  return undefined;
}

/** A value as JSON that holds its own checksum. */
export function sealed(value: object): string {
  const text = JSON.stringify(value);
  const sha256 = createHash("sha256").update(text).digest("hex");
  return `${JSON.stringify({ ...value, sha256 }, null, 2)}\n`;
}

/** The value of such a text. Throws a `SyntaxError` that says why it is none. */
export function unsealed(text: string): object {
  const value = JSON.parse(text) as unknown;
  if (typeof value !== "object" || value === null) throw new SyntaxError("a JSON object was expected");
  const { sha256, ...rest } = value as Record<string, unknown>;
  if (sha256 === undefined) throw new SyntaxError("there is no checksum");
  if (createHash("sha256").update(JSON.stringify(rest)).digest("hex") !== sha256)
    throw new SyntaxError("the checksum differs: it was changed or damaged");
  return rest;
}

/** Waits until the names in a folder are on the disk, where the system can tell. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
