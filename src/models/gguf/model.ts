/** A model that lies in a GGUF file, as the loader takes it. */
import { createHash } from "node:crypto";

import { ggufTensor, openGguf, type GgufValue } from "../../gguf.js";
import type { GgufFile } from "../../native.js";
import { madeOf } from "../beside.js";
import type { StoredModel } from "../stored.js";
import { ggufConfig } from "./config.js";
import { Metadata } from "./metadata.js";
import { architectureOf, FACTORS, Names } from "./names.js";
import type { Factors } from "./rotation.js";
import { tokenizerFiles, tokenizerOf } from "./tokenizer.js";
import { GgufWeights } from "./weights.js";

/** Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNSUPPORTED_MODEL`. */
export async function ggufModel(path: string): Promise<StoredModel> {
  const file = openGguf(path);
  const meta = new Metadata(file, path);
  const architecture = architectureOf(meta);
  const parts = meta.number("split.count") ?? 1;
  if (parts > 1) {
    const how = "join them first (llama-gguf-split --merge)";
    throw meta.unsupported(`the file is one of ${parts} that the model is split into; ${how}`);
  }
  const factors = await rotationFactors(file);
  const config = ggufConfig(meta, file, architecture, factors);
  const beside = tokenizerFiles(meta, architecture);
  const heads = meta.required(`${architecture}.attention.head_count`);
  const kv = config.value("num_key_value_heads");
  const weights = new GgufWeights(file, new Names(architecture), {
    query: heads,
    key: typeof kv === "number" ? kv : heads,
  });
  const unread = meta.unread(`${architecture}.`);
  const notices =
    unread.length === 0
      ? []
      : [`${path}: passed over ${unread.length} keys whose meaning is not known here: ${unread.join(", ")}`];
  return {
    config,
    generation: undefined,
    notices,
    folder: undefined,
    beside: beside ?? madeOf(path, {}),
    weights: () => weights,
    tokenizer: () => tokenizerOf(path, beside),
  };
}

async function rotationFactors(file: GgufFile): Promise<Factors> {
  const names = file.names();
  const read = async (name: string): Promise<number[] | undefined> => {
    const stored = names.find((one) => one === name || one.replace(/^blk\.\d+\./, "") === name);
    if (stored === undefined) return undefined;
    const tensor = ggufTensor(file, stored, "cpu");
    try {
      return Array.from(await tensor.data());
    } finally {
      tensor.dispose();
    }
  };
  return { all: await read(FACTORS.all), short: await read(FACTORS.short), long: await read(FACTORS.long) };
}

/** What the metadata says, told by content: of the tokenizer, and of all else. */
export function metadataDigests(path: string): { tokenizer: string | undefined; model: string } {
  const meta = new Metadata(openGguf(path), path);
  const digest = (values: [string, GgufValue][]): string => {
    const text = JSON.stringify(values, (_, value: unknown) =>
      typeof value === "bigint" ? value.toString() : value,
    );
    return createHash("sha256").update(text).digest("hex");
  };
  const tokenizer = meta.all("tokenizer.");
  const model = meta.all("").filter(([key]) => !key.startsWith("tokenizer."));
  return { tokenizer: tokenizer.length > 0 ? digest(tokenizer) : undefined, model: digest(model) };
}
