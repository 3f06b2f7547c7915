/** The parts of a model as files contain it. */
import type { CompanionFiles } from "./companion-files.js";
import type { ConfigFields } from "./config-fields.js";
import type { Tokenizer } from "./tokenizer.js";
import type { TensorSource } from "./weights.js";

/** A model in a folder or in a GGUF file. */
export interface StoredModel {
  config: ConfigFields;
  /** `generation_config.json`, where there is one. */
  generation: ConfigFields | undefined;
  /** Notices for the user. */
  notices: readonly string[];
  /** The folder; undefined for a GGUF file. */
  folder: string | undefined;
  /** The companion files generated from a GGUF file; undefined for a folder. */
  companions: CompanionFiles | undefined;
  /** Opens the weights. */
  weights(): TensorSource;
  /** Returns the tokenizer; undefined where there is none. */
  tokenizer(): Tokenizer | undefined;
}
