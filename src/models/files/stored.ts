/** Opens a stored model: a Hugging Face folder, or a GGUF file. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

import { LowrankError } from "../../errors.js";
import { isGguf } from "../../gguf/read.js";
import { openWeights } from "../../files/safetensors.js";
import { readModelConfig } from "../config-fields.js";
import { openGgufModel } from "../../gguf/import/model.js";
import { Tokenizer } from "../tokenizer.js";
import type { StoredModel } from "../stored-model.js";
import { listStored } from "../weights.js";

/** Opens the model at `path`. Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_UNSUPPORTED_MODEL`. */
export async function openStoredModel(path: string): Promise<StoredModel> {
  const isFolder = statSync(path).isDirectory();
  if (!isFolder && isGguf(path)) return openGgufModel(path);
  const folder = isFolder ? path : dirname(path);
  if (isFolder) checkNotGguf(folder);
  else if (!existsSync(join(folder, "config.json"))) {
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${path}: not a model; give a model's folder, its weights next to a config.json, or a GGUF file`,
    );
  }
  const { config, generation } = readModelConfig(folder);
  return {
    config,
    generation,
    notices: [],
    folder,
    companions: undefined,
    weights: () => {
      checkFormat(path, folder);
      return listStored(openWeights(path));
    },
    tokenizer: () => {
      const file = join(folder, "tokenizer.json");
      return existsSync(file) ? new Tokenizer(file) : undefined;
    },
  };
}

/** Throws `ERR_FILE_NOT_FOUND` for a folder with GGUF files but without `config.json`: the user must name a file. */
function checkNotGguf(folder: string): void {
  if (existsSync(join(folder, "config.json"))) return;
  const file = readdirSync(folder).find((name) => /\.gguf$/i.test(name));
  if (file === undefined) return;
  throw new LowrankError(
    "ERR_FILE_NOT_FOUND",
    `${folder}: has no config.json; for a model in a GGUF file name the file, such as ${join(folder, file)}`,
  );
}

/** Throws `ERR_FILE_FORMAT` for a folder with weights in other formats only. */
function checkFormat(path: string, folder: string): void {
  if (path !== folder) return;
  const files = readdirSync(folder);
  if (files.some((name) => /^model\.safetensors(\.index\.json)?$/.test(name))) return;
  const other = files.find((name) =>
    /^(pytorch_model.*\.bin|tf_model.*\.h5|flax_model.*\.msgpack)$/.test(name),
  );
  if (other === undefined) return;
  const convert = other.startsWith("pytorch")
    ? `: from transformers import AutoModel; AutoModel.from_pretrained("${folder}").save_pretrained("${folder}") does it ` +
      "in Python, by the class that the model is of"
    : "";
  throw new LowrankError(
    "ERR_FILE_FORMAT",
    `${folder}: its weights are in ${other}, which is not read; convert them to model.safetensors${convert}`,
  );
}
