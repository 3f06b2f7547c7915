/** The chat template and the special tokens that lie beside a tokenizer. */
import { LowrankError } from "../errors.js";
import type { ChatTemplates } from "../lora/adapter/chat-templates.js";
import { TEMPLATE, TOOLS_TEMPLATE } from "../lora/formats/folder.js";
import { type Beside, fieldsBeside } from "./beside.js";
import { type ConfigFields, readText } from "./config-fields.js";

/** A template's text, and what errors call it. */
export interface TemplateSource {
  text: string;
  where: string;
}

/** Longer than any template is. */
const LONGEST = 4 << 20;

/**
 * A template in a file of its own.
 *
 * Errors: `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for what cannot be read or is no template by its size.
 */
export function readTemplateFile(file: string): TemplateSource {
  const source = templateOf(file, readText(file));
  if (source !== undefined) return source;
  throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: no such chat template`);
}

/** A template's text, checked; undefined where there is none. */
function templateOf(file: string, text: string | undefined): TemplateSource | undefined {
  if (text === undefined) return undefined;
  if (text.length > LONGEST) {
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${file}: is ${text.length} characters long, and no chat template`,
    );
  }
  return { text, where: file };
}

/**
 * The template beside a tokenizer: of `chat_template.jinja`, or else of `chat_template` in
 * `tokenizer_config.json`, which is a text or a list of named ones. Of those `tool_use` is for conversations with tools,
 * and `default` for others; so is `additional_chat_templates/tool_use.jinja`. Undefined where there is none.
 *
 * Errors: `ERR_FILE_FORMAT`.
 */
export function readChatTemplate(beside: Beside, tools: boolean): TemplateSource | undefined {
  const inFile = (name: string): TemplateSource | undefined =>
    templateOf(beside.place(name), beside.text(name));
  const own = (tools ? inFile(TOOLS_TEMPLATE) : undefined) ?? inFile(TEMPLATE);
  if (own !== undefined) return own;
  const config = fieldsBeside(beside, "tokenizer_config.json");
  const value = config?.value("chat_template");
  if (config === undefined || value === undefined) return undefined;
  if (typeof value === "string") return { text: value, where: config.file };
  if (!Array.isArray(value) || !value.every(isNamed))
    throw config.error("chat_template", "must be a text or a list of {name, template}");
  const find = (name: string): TemplateSource | undefined => {
    const found = value.find((one) => one.name === name);
    return found && { text: found.template, where: `${config.file}, template "${name}"` };
  };
  return (tools ? find("tool_use") : undefined) ?? find("default");
}

/** Both templates of a tokenizer; undefined where there is none. Errors: `ERR_FILE_FORMAT`. */
export function templatesBeside(beside: Beside): ChatTemplates | undefined {
  const own = readChatTemplate(beside, false);
  if (own === undefined) return undefined;
  const tools = readChatTemplate(beside, true)?.text;
  return { ...own, tools: tools === own.text ? undefined : tools };
}

function isNamed(value: unknown): value is { name: string; template: string } {
  if (typeof value !== "object" || value === null) return false;
  const { name, template } = value as Record<string, unknown>;
  return typeof name === "string" && typeof template === "string";
}

/** A token of a configuration: its text, or an object with `content`. */
export function tokenText(config: ConfigFields | undefined, key: string): string | undefined {
  const value = config?.value(key);
  if (typeof value === "string" || value === undefined) return value;
  return config?.object(key)?.string("content");
}

/** Special tokens that any tokenizer may have. */
const NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

/** The special tokens of a tokenizer by their names, which templates write. Errors: `ERR_FILE_FORMAT`. */
export function readSpecialTokens(beside: Beside): Record<string, string> {
  const files = ["tokenizer_config.json", "special_tokens_map.json"].map((name) =>
    fieldsBeside(beside, name),
  );
  const tokens: Record<string, string> = {};
  for (const name of NAMES) {
    const text = files.map((config) => tokenText(config, name)).find((one) => one !== undefined);
    if (text !== undefined) tokens[name] = text;
  }
  return tokens;
}
