/** Prompts and completions as conversations. */
import {
  describeKind,
  type Message,
  parseMessages,
  parseTools,
  type RowConversation,
  separateWeights,
} from "./messages.js";

/** Returns a prompt and its completion as the messages of a user and an assistant. */
export function pairMessages(prompt: string, completion: string): Message[] {
  return [
    { role: "user", content: prompt },
    { role: "assistant", content: completion },
  ];
}

/** Whether a row's prompt or completion is an array of messages, TRL's conversational form. */
export function hasPromptMessages({ prompt, completion }: Record<string, unknown>): boolean {
  return Array.isArray(prompt) || Array.isArray(completion);
}

/** Returns the conversation of a row whose prompt and completion are arrays of messages, as in TRL. */
export function parsePromptMessages(
  fields: Record<string, unknown>,
  refuse: (what: string) => never,
): RowConversation {
  const { prompt, completion } = fields;
  for (const [name, value, other] of [
    ["prompt", prompt, "completion"],
    ["completion", completion, "prompt"],
  ] as const)
    if (!Array.isArray(value))
      refuse(
        `"${name}" is ${describeKind(value)}, and "${other}" an array of messages; make both strings, or both arrays of messages`,
      );
  const before = parseMessages(prompt, '"prompt"', refuse);
  const after = parseMessages(completion, '"completion"', refuse);
  return {
    ...separateWeights([...before, ...after]),
    tools: parseTools(fields["tools"], refuse),
    format: "messages",
    promptMessages: before.length,
  };
}
