/** A conversation, from the command line or a file. */
import { messagesOf } from "../chat/messages.js";
import { LowrankError } from "../errors.js";
import { readText } from "../models/config-fields.js";
import type { Message } from "../models/generate.js";

/**
 * The messages of a file, or of an argument that is JSON itself: an array of them, or an object that has one as
 * `messages`.
 *
 * Errors: `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` for what is no JSON or no messages.
 */
export function readMessages(argument: string): Message[] {
  const inline = /^\s*[[{]/.test(argument);
  const where = inline ? "--messages" : argument;
  const refuse = (what: string, cause?: unknown): never => {
    throw new LowrankError("ERR_FILE_FORMAT", `${where}: ${what}`, { cause });
  };
  const text = inline ? argument : contentOf(argument);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    return refuse('not JSON; expected [{"role": …, "content": …}, …]', cause);
  }
  if (typeof value === "object" && value !== null && "tools" in value && value.tools != null)
    return refuse("holds tools, which a prompt on the command line cannot have; leave them out");
  const own = typeof value === "object" && value !== null && "messages" in value ? value.messages : value;
  return messagesOf(own, "messages", refuse);
}

function contentOf(file: string): string {
  const text = readText(file);
  if (text !== undefined) return text;
  throw new LowrankError("ERR_FILE_NOT_FOUND", `${file}: no such file of messages`);
}
