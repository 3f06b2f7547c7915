/** Reads the conversation of a chat completion, and renders it with the model's chat template. */
import { findIgnoredParts } from "../chat/ignored.js";
import { type Conversation, parseMessages, parseTools } from "../chat/messages.js";
import type { ChatTemplate } from "../chat/template.js";
import { createParameterError } from "./api-error.js";
import { type Parameters, createUnsupported, isObject } from "./parameters.js";

/** Returns the messages and tools of a request. Throws an `ApiError` that names the invalid parameter. */
export function readConversation(given: Parameters): Conversation {
  const value = given.require("messages");
  const messages = parseMessages(fillEmptyAnswers(value), "messages", (what) => {
    throw createParameterError("messages", what, "invalid_value");
  });
  const tools = parseTools(given.take("tools"), (what) => {
    throw createParameterError("tools", what, "invalid_value");
  });
  const choice = given.take("tool_choice");
  // The server returns the model's output as text, so it cannot force a tool call.
  if (choice !== undefined && choice !== "auto" && choice !== "none")
    throw createUnsupported("tool_choice", ["auto", "none"]);
  return { messages, tools: choice === "none" ? undefined : tools };
}

/** Gives an assistant's message with `content: null` and no tool calls an empty text, as OpenAI's API does. */
function fillEmptyAnswers(messages: unknown): unknown {
  if (!Array.isArray(messages)) return messages;
  return messages.map((message: unknown) => {
    if (!isObject(message) || message["role"] !== "assistant" || message["content"] !== null) return message;
    const calls = message["tool_calls"] ?? [];
    return Array.isArray(calls) && calls.length === 0 ? { ...message, content: "" } : message;
  });
}

/**
 * Renders a conversation up to the beginning of the assistant's turn. Throws an `ApiError` where the template ignores
 * tools, tool calls or their results.
 */
export function renderConversation(
  template: ChatTemplate,
  given: Conversation,
  variables: Readonly<Record<string, unknown>>,
): string {
  const conversation = { ...given, messages: replaceDeveloper(template, given.messages) };
  checkIgnored(template, conversation);
  return template.render(conversation, { addGenerationPrompt: true, variables });
}

/** Returns the messages with `developer` as `system`, unless the template has the role `developer`. */
function replaceDeveloper(
  template: ChatTemplate,
  messages: Conversation["messages"],
): Conversation["messages"] {
  if (template.hasRole("developer")) return messages;
  return messages.map((message) => (message.role === "developer" ? { ...message, role: "system" } : message));
}

function checkIgnored(template: ChatTemplate, conversation: Conversation): void {
  const { messages, tools } = conversation;
  const usesTools = messages.some(({ role, tool_calls: calls }) => calls !== undefined || role === "tool");
  if (tools === undefined && !usesTools) return;
  const ignored = findIgnoredParts(template, conversation, template.render(conversation));
  const refuse = (param: string, what: string): never => {
    throw createParameterError(param, what, "unsupported_parameter");
  };
  if (ignored.tools || ignored.calls)
    refuse(
      ignored.tools ? "tools" : "messages",
      `this model's chat template ignores ${ignored.tools ? "tools" : "tool calls"}; leave them out`,
    );
  if (ignored.messages)
    refuse("messages", "this model's chat template ignores the content of a message; leave the message out");
}
