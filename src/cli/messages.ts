/** Parses a conversation from the command line or a file. */
import { parseMessages } from "../chat/messages.js";
import { LowrankError } from "../errors.js";
import { readText } from "../models/config-fields.js";
import type { Message } from "../models/generate.js";

/**
 * Returns the messages in a file, or in an argument that is itself JSON: an array of messages, or an object with an array
 * `messages`. Throws `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for invalid JSON or invalid messages.
 */
export function readMessages(argument: string): Message[] {
  const inline = /^\s*[[{]/.test(argument);
  const where = inline ? "--messages" : argument;
  const refuse = (what: string, cause?: unknown): never => {
    throw new LowrankError("ERR_FILE_FORMAT", `${where}: ${what}`, { cause });
  };
  const text = inline ? argument : readContent(argument);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    return refuse('not JSON; expected [{"role": …, "content": …}, …]', cause);
  }
  if (typeof value === "object" && value !== null && "tools" in value && value.tools != null)
    return refuse("contains tools, which a command-line prompt does not support; remove them");
  const messages =
    typeof value === "object" && value !== null && "messages" in value ? value.messages : value;
  return parseMessages(messages, "messages", refuse);
}

function readContent(file: string): string {
  const text = readText(file);
  if (text !== undefined) return text;
  throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: no such file`);
}
