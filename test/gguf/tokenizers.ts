/** The content of the goldens of GGUF tokenizers, for other files that need a tokenizer. */
import { join } from "node:path";

import { openGguf } from "../../src/gguf/read.js";
import type { Value } from "./models.js";
import { goldens } from "../parity/goldens.js";

export const tokenizersFolder = join(goldens, "gguf", "tokenizers");

/** Returns the metadata of a tokenizer, and its number of tokens. */
export function tokenizerMetadata(name: string): {
  vocabulary: number;
  metadata: Readonly<Record<string, Value>>;
} {
  const file = openGguf(join(tokenizersFolder, `${name}.gguf`));
  const keys = file.keys().filter((key) => key.startsWith("tokenizer."));
  const metadata = Object.fromEntries(keys.map((key) => [key, file.metadata(key) as Value]));
  return { vocabulary: file.textCount("tokenizer.ggml.tokens") as number, metadata };
}
