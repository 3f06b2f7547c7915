/** Detects parts of a conversation that a chat template ignores: changing them does not change its text. */
import type { Conversation, Message } from "./messages.js";
import type { ChatTemplate } from "./template.js";

/** Which parts of a conversation the template ignores. */
export interface Ignored {
  /** A tool call of the assistant. */
  calls: boolean;
  /** The tools that the assistant may call. */
  tools: boolean;
  /** The content of a message of another role than the assistant, such as the system message. */
  messages: boolean;
}

/** Detects the ignored parts of a conversation, whose rendered text is `text`. */
export function findIgnoredParts(template: ChatTemplate, conversation: Conversation, text: string): Ignored {
  const { messages, tools } = conversation;
  const render = (changed: Partial<Conversation>): string | undefined => {
    try {
      return template.render({ ...conversation, ...changed });
    } catch {
      return undefined;
    }
  };
  const replaceMessage = (place: number, message: Message): readonly Message[] =>
    messages.map((other, i) => (i === place ? message : other));
  const ignoresCalls = (message: Message, place: number): boolean => {
    const calls = listCalls(message);
    return calls.some((_, i) => {
      const others = calls.map((call, k) => (k === i ? alterStrings(call) : call));
      return render({ messages: replaceMessage(place, { ...message, tool_calls: others }) }) === text;
    });
  };
  const ignoresTools = (): boolean =>
    tools !== undefined &&
    [undefined, alterStrings(tools) as readonly object[]].some(
      (others) => render({ tools: others }) === text,
    );
  const ignoresContent = (message: Message, place: number): boolean => {
    const { role, content } = message;
    if (role === "assistant" || typeof content !== "string" || text.includes(content.trim())) return false;
    return (
      render({
        messages: replaceMessage(place, { ...message, content: alterStrings(content) as string }),
      }) === text
    );
  };
  return {
    calls: messages.some(ignoresCalls),
    tools: ignoresTools(),
    messages: messages.some(ignoresContent),
  };
}

function listCalls({ tool_calls: calls }: Message): readonly unknown[] {
  return Array.isArray(calls) ? calls : [];
}

/** Returns the value with every string in it changed. */
function alterStrings(value: unknown): unknown {
  if (typeof value === "string") return `${value}Qv`;
  if (Array.isArray(value)) return value.map(alterStrings);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, alterStrings(entry)]));
}
