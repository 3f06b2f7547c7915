/** Model folders with a tokenizer and a chat template. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import type { Message } from "../../src/chat/messages.js";
import { Tokenizer } from "../../src/models/tokenizer.js";
import { addedToken } from "../added-token.js";
import { temporary } from "../hashed.js";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The special tokens of a model family. */
export interface Family {
  tokens: readonly string[];
  /** Whether they consume the whitespace after them. */
  rstrip: boolean;
  /** By their names in `tokenizer_config.json`. */
  special: Readonly<Record<string, string>>;
}

export const families = JSON.parse(readFileSync(here("families.json"), "utf8")) as Record<string, Family>;

export const conversations = JSON.parse(readFileSync(here("conversations.json"), "utf8")) as {
  messages: Message[];
}[];

/** Returns the text of a template in `templates/`. */
export function templateText(name: string): string {
  return readFileSync(here(`templates/${name}.jinja`), "utf8");
}

/** Returns the embedded model's tokenizer.json with these special tokens added. */
export function tokenizerJson({ tokens, rstrip }: Pick<Family, "tokens" | "rstrip">): string {
  const json = JSON.parse(readFileSync(here("../../models/default/tokenizer.json"), "utf8")) as {
    added_tokens: { id: number; content: string }[];
    model: { vocab: Record<string, number> };
  };
  let id = Object.keys(json.model.vocab).length;
  for (const content of tokens) {
    if (json.added_tokens.some((one) => one.content === content)) continue;
    json.added_tokens.push(addedToken(id++, content, { rstrip }));
  }
  return JSON.stringify(json);
}

/** Creates a tokenizer in a separate folder; `config` is its tokenizer_config.json. */
export function tokenizerOf(
  family: Family,
  template: unknown,
  config: Record<string, unknown> = {},
): Tokenizer {
  const folder = temporary();
  writeFileSync(join(folder, "tokenizer.json"), tokenizerJson(family));
  const all = {
    ...family.special,
    ...(template === undefined ? {} : { chat_template: template }),
    ...config,
  };
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(all));
  return new Tokenizer(join(folder, "tokenizer.json"));
}

/** ChatML's tokens. */
export const chatMl = families["qwen2_5"] as Family;
