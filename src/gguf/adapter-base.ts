/** The base model of an adapter in GGUF, whose configuration determines tensor names and row order. */
import { LowrankError } from "../errors.js";
import { ARCHITECTURES, type Architecture } from "./architectures.js";
import { refuseGguf } from "./refusals.js";

/** The values of the base model's configuration. */
export interface Base {
  architecture: Architecture;
  heads: number;
  keyValueHeads: number;
  layers: number;
  tied: boolean;
}

/**
 * Parses the configuration of the adapter in `file`; `where` names the configuration in messages.
 *
 * Throws `ERR_UNSUPPORTED_MODEL` for a family that llama.cpp or this package does not know, `ERR_FILE_FORMAT`.
 */
export function parseBase(where: string, file: string, config: Record<string, unknown>): Base {
  const modelType = String(config["model_type"]);
  const architecture = Object.hasOwn(ARCHITECTURES, modelType) ? ARCHITECTURES[modelType] : undefined;
  if (architecture === undefined)
    refuseGguf("adapterFamily", file, `an adapter of model_type "${modelType}"`, "ERR_UNSUPPORTED_MODEL");
  const count = (...keys: string[]): number => {
    const key = keys.find((candidate) => (config[candidate] ?? null) !== null) ?? (keys[0] as string);
    const value = config[key];
    if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${where}: ${key} must be a whole number of at least 1, got ${String(value)}`,
    );
  };
  const heads = count("num_attention_heads", "n_head");
  // Transformers' defaults for a missing key; null means as many as heads.
  const silent = modelType === "mistral" && !("num_key_value_heads" in config) ? 8 : heads;
  return {
    architecture,
    heads,
    keyValueHeads: (config["num_key_value_heads"] ?? null) === null ? silent : count("num_key_value_heads"),
    layers: count("num_hidden_layers", "n_layer"),
    tied: (config["tie_word_embeddings"] ?? architecture.tied) !== false,
  };
}
