/**
 * Identifies the inputs of a run by content, so that identical files at another path count as the same.
 *
 * A weight file of up to 16 MiB is hashed completely. For a larger file the hash covers its size and 64 evenly spaced
 * pieces, 8 MiB in total, which takes milliseconds. Training changes all weights of a model, and so every piece.
 */
import { createHash, type Hash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { open, readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { type Data, listHashes } from "../data/read.js";
import { joinIdentities } from "../data/source/pieces.js";
import { LowrankError, readSystemCode } from "../errors.js";
import { isGguf } from "../gguf/read.js";
import { digestMetadata } from "../gguf/import/model.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { digestFile } from "./output/manifest.js";
import type { Identities } from "./output/run-file.js";
import type { Files } from "./prepare.js";

const WHOLE = 16 << 20;
const PIECES = 64;
const PIECE = (8 << 20) / PIECES;

/** Identifies a model, loaded or given by its path, and the data as it was read. */
export async function identifyInputs(
  model: string | PretrainedModel,
  { train, held }: Files,
): Promise<Identities> {
  // The `source` of a model from a hub is a name, not a path.
  const path = typeof model === "string" ? model : model.revision === undefined ? model.source : model.folder;
  const onDisk = path !== undefined && existsSync(path);
  if (onDisk && statSync(path).isFile() && isGguf(path)) {
    const { tokenizer, model: modelDigest } = await digestMetadata(path);
    const hash = createHash("sha256").update(modelDigest);
    await explainReadErrors(path, () => addSampled(hash, path));
    return {
      base: hash.digest("hex"),
      ...(tokenizer !== undefined && { tokenizer }),
      ...identifyData(train, held),
    };
  }
  const folder = onDisk ? (statSync(path).isDirectory() ? path : dirname(path)) : undefined;
  const tokenizer = folder === undefined ? undefined : await identifyFile(join(folder, "tokenizer.json"));
  return {
    base: folder === undefined ? identifyStructure(model) : await identifyBase(path as string, folder),
    ...(tokenizer !== undefined && { tokenizer }),
    ...identifyData(train, held),
  };
}

function identifyData(
  train: Data,
  held: Data | undefined,
): Pick<Identities, "data" | "evalData" | "sources"> {
  const sources = { data: listHashes(train), ...(held !== undefined && { evalData: listHashes(held) }) };
  return {
    data: joinIdentities(sources.data),
    ...(sources.evalData !== undefined && { evalData: joinIdentities(sources.evalData) }),
    sources,
  };
}

/** Returns the hash of the whole file; undefined if it does not exist. */
async function identifyFile(file: string): Promise<string | undefined> {
  if (!existsSync(file)) return undefined;
  return (await explainReadErrors(file, () => digestFile(file))).sha256;
}

/** Runs `read`. Throws `ERR_FILE_NOT_FOUND` or `ERR_FILE_FORMAT` with the file's name. */
async function explainReadErrors<T>(file: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    const code = readSystemCode(cause);
    if (code === "ENOENT") throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: no such file`, { cause });
    const why = code === "EISDIR" ? "is a folder, and a file was expected" : `cannot be read (${code})`;
    throw new LowrankError("ERR_FILE_FORMAT", `${file}: ${why}`, { cause });
  }
}

async function identifyBase(path: string, folder: string): Promise<string> {
  const hash = createHash("sha256");
  const config = await readFile(join(folder, "config.json"), "utf8").catch(() => "");
  hash.update(normaliseConfig(config));
  const files =
    path === folder
      ? (await readdir(folder)).filter((name) => /^(?!adapter_).*\.(safetensors|gguf)$/.test(name)).sort()
      : [basename(path)];
  for (const file of files.map((name) => join(folder, name)))
    await explainReadErrors(file, () => addSampled(hash, file));
  return hash.digest("hex");
}

/** Removes the fields of a configuration that do not affect the model. */
function normaliseConfig(text: string): string {
  try {
    const {
      _name_or_path: _,
      transformers_version: _version,
      ...rest
    } = JSON.parse(text) as Record<string, unknown>;
    return JSON.stringify(rest);
  } catch {
    return text;
  }
}

async function addSampled(hash: Hash, file: string): Promise<void> {
  const { size } = statSync(file);
  hash.update(`${size}\n`);
  if (size <= WHOLE) {
    hash.update((await digestFile(file)).sha256);
    return;
  }
  const handle = await open(file, "r");
  try {
    const piece = Buffer.alloc(PIECE);
    for (let i = 0; i < PIECES; i++) {
      const offset = Math.floor(((size - PIECE) * i) / (PIECES - 1));
      const { bytesRead } = await handle.read(piece, 0, PIECE, offset);
      hash.update(piece.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}

/** Identifies a model without files by its configuration and the names, shapes and types of its tensors. */
function identifyStructure(model: string | PretrainedModel): string {
  const hash = createHash("sha256");
  if (typeof model === "string") return hash.update(model).digest("hex");
  hash.update(JSON.stringify(model.config));
  for (const [name, { shape, dtype }] of Object.entries(model.stateDict()))
    if (!name.includes("lora_")) hash.update(`${name} ${shape.join()} ${dtype}\n`);
  return hash.digest("hex");
}
