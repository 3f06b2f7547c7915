/** Opens a GGUF file as a model for the loader. */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";

import { resolveNativePath } from "../../files/archive.js";
import { mapGgufTensor, openGguf } from "../read.js";
import { call, native, type GgufFile } from "../../native/binding.js";
import { generateCompanions } from "../../models/companion-files.js";
import type { StoredModel } from "../../models/stored-model.js";
import { convertConfig } from "./config.js";
import { Metadata } from "./metadata.js";
import { readArchitecture, FACTORS, Names } from "./names.js";
import type { Factors } from "./rotation.js";
import { readTokenizer } from "./tokenizer.js";
import { GgufWeights } from "./weights.js";

/** Bytes of metadata per read. */
const PIECE = 64 << 10;

/** Opens the model at `path`. Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNSUPPORTED_MODEL`. */
export async function openGgufModel(path: string): Promise<StoredModel> {
  const file = openGguf(path);
  const meta = new Metadata(file, path);
  const architecture = readArchitecture(meta);
  const parts = meta.readNumber("split.count") ?? 1;
  if (parts > 1) {
    const how = "join them first (llama-gguf-split --merge)";
    throw meta.createUnsupported(`the file is one of ${parts} that the model is split into; ${how}`);
  }
  const factors = await readRotationFactors(file);
  const config = convertConfig(meta, file, architecture, factors);
  const tokenizer = readTokenizer(meta, architecture);
  const heads = meta.requireNumber(`${architecture}.attention.head_count`);
  const kv = config.readValue("num_key_value_heads");
  const weights = new GgufWeights(file, new Names(architecture), {
    query: heads,
    key: typeof kv === "number" ? kv : heads,
  });
  const unread = meta.listUnread(`${architecture}.`);
  const notices =
    unread.length === 0 ? [] : [`${path}: ignored ${unread.length} unknown keys: ${unread.join(", ")}`];
  return {
    config,
    generation: undefined,
    notices,
    folder: undefined,
    companions: tokenizer?.companions ?? generateCompanions(path, {}),
    weights: () => weights,
    tokenizer: () => tokenizer?.tokenizer(),
  };
}

async function readRotationFactors(file: GgufFile): Promise<Factors> {
  const names = call(() => file.names());
  const read = async (name: string): Promise<number[] | undefined> => {
    const stored = names.find(
      (candidate) => candidate === name || candidate.replace(/^blk\.\d+\./, "") === name,
    );
    if (stored === undefined) return undefined;
    const tensor = mapGgufTensor(file, stored, "cpu");
    try {
      return Array.from(await tensor.data());
    } finally {
      tensor.dispose();
    }
  };
  return { all: await read(FACTORS.all), short: await read(FACTORS.short), long: await read(FACTORS.long) };
}

/** Returns SHA-256 digests of the metadata: of the tokenizer's keys, and of all others. */
export async function digestMetadata(
  path: string,
): Promise<{ tokenizer: string | undefined; model: string }> {
  const [tokenizer, model] = [createHash("sha256"), createHash("sha256")];
  let hasTokenizer = false;
  const places = call(() => native().ggufPlaces(resolveNativePath(path)));
  const file = await open(path, "r");
  try {
    const piece = Buffer.alloc(PIECE);
    for (const { key, start, end } of places) {
      const ofTokenizer = key.startsWith("tokenizer.");
      hasTokenizer ||= ofTokenizer;
      const hash = ofTokenizer ? tokenizer : model;
      hash.update(`${Buffer.byteLength(key)} ${key} ${end - start} `);
      for (let offset = start; offset < end;) {
        const { bytesRead } = await file.read(piece, 0, Math.min(PIECE, end - offset), offset);
        if (bytesRead === 0) break;
        hash.update(piece.subarray(0, bytesRead));
        offset += bytesRead;
      }
    }
  } finally {
    await file.close();
  }
  return { tokenizer: hasTokenizer ? tokenizer.digest("hex") : undefined, model: model.digest("hex") };
}
