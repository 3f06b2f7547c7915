/** Reads a tokenizer's chat template and special tokens from its companion files. */
import { LowrankError } from "../errors.js";
import type { ChatTemplates } from "../lora/adapter/chat-templates.js";
import { TEMPLATE, TOOLS_TEMPLATE } from "../lora/formats/folder.js";
import { type CompanionFiles, readCompanionFields } from "./companion-files.js";
import { type ConfigFields, readText } from "./config-fields.js";

/** A template's text, and its name for error messages. */
export interface TemplateSource {
  text: string;
  where: string;
}

/** The maximum length of a template, in UTF-16 units. */
const LONGEST = 4 << 20;

/**
 * Reads a template from a file.
 *
 * Throws `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for a file that cannot be read or is too long for a template.
 */
export function readTemplateFile(file: string): TemplateSource {
  const source = checkTemplate(file, readText(file));
  if (source !== undefined) return source;
  throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: no such chat template`);
}

/** Checks the length of a template's text; undefined where there is none. */
function checkTemplate(file: string, text: string | undefined): TemplateSource | undefined {
  if (text === undefined) return undefined;
  if (text.length > LONGEST) {
    throw new LowrankError(
      "ERR_FILE_FORMAT",
      `${file}: ${text.length} characters are too many for a chat template; the limit is ${LONGEST}`,
    );
  }
  return { text, where: file };
}

/**
 * Reads a tokenizer's template from `chat_template.jinja`, else from `chat_template` in `tokenizer_config.json`, which
 * is a text or a list of named templates. With `tools`, the template for conversations with tools takes precedence:
 * `additional_chat_templates/tool_use.jinja`, or `tool_use` in the list, whose fallback is `default`. Returns undefined
 * where there is none.
 *
 * Throws `ERR_FILE_FORMAT`.
 */
export function readChatTemplate(companions: CompanionFiles, tools: boolean): TemplateSource | undefined {
  const inFile = (name: string): TemplateSource | undefined =>
    checkTemplate(companions.place(name), companions.text(name));
  const source = (tools ? inFile(TOOLS_TEMPLATE) : undefined) ?? inFile(TEMPLATE);
  if (source !== undefined) return source;
  const config = readCompanionFields(companions, "tokenizer_config.json");
  const value = config?.readValue("chat_template");
  if (config === undefined || value === undefined) return undefined;
  if (typeof value === "string") return { text: value, where: config.file };
  if (!Array.isArray(value) || !value.every(isNamed))
    throw config.createError("chat_template", "must be a text or a list of {name, template}");
  const find = (name: string): TemplateSource | undefined => {
    const found = value.find((entry) => entry.name === name);
    return found && { text: found.template, where: `${config.file}, template "${name}"` };
  };
  return (tools ? find("tool_use") : undefined) ?? find("default");
}

/** Reads a tokenizer's templates, with and without tools; undefined where there is none. Throws `ERR_FILE_FORMAT`. */
export function readStoredTemplates(companions: CompanionFiles): ChatTemplates | undefined {
  const source = readChatTemplate(companions, false);
  if (source === undefined) return undefined;
  const tools = readChatTemplate(companions, true)?.text;
  return { ...source, tools: tools === source.text ? undefined : tools };
}

function isNamed(value: unknown): value is { name: string; template: string } {
  if (typeof value !== "object" || value === null) return false;
  const { name, template } = value as Record<string, unknown>;
  return typeof name === "string" && typeof template === "string";
}

/** Returns the text of a token in a configuration, where it is a string or an object with `content`. */
export function readTokenText(config: ConfigFields | undefined, key: string): string | undefined {
  const value = config?.readValue(key);
  if (typeof value === "string" || value === undefined) return value;
  return config?.readObject(key)?.readString("content");
}

/** The special tokens that chat templates can refer to. */
const NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

/** Reads the special tokens of a tokenizer, by name, as variables for chat templates. Throws `ERR_FILE_FORMAT`. */
export function readSpecialTokens(companions: CompanionFiles): Record<string, string> {
  const files = ["tokenizer_config.json", "special_tokens_map.json"].map((name) =>
    readCompanionFields(companions, name),
  );
  const tokens: Record<string, string> = {};
  for (const name of NAMES) {
    const text = files.map((config) => readTokenText(config, name)).find((token) => token !== undefined);
    if (text !== undefined) tokens[name] = text;
  }
  return tokens;
}
