/** Conversations, as chat templates take them. */

/** A turn of a conversation. */
export interface Message {
  /** Who speaks: `system`, `user`, `assistant`, `tool`. */
  role: string;
  /** What is said: a text, or parts as the template takes them. An assistant that calls tools may say nothing. */
  content?: string | readonly object[] | null | undefined;
  /** What else the template reads, such as `tool_calls`. */
  [field: string]: unknown;
}

/** Turns, and the tools that the assistant may call. */
export interface Conversation {
  readonly messages: readonly Message[];
  /** Their JSON schemas; undefined for none. */
  readonly tools?: readonly object[] | undefined;
}

/** Roles that templates know. */
const ROLES = ["system", "developer", "user", "assistant", "tool", "function", "ipython"] as const;

/** The names that rows of `from` and `value` have for them. */
const SPEAKERS: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  assistant: "assistant",
  bot: "assistant",
  model: "assistant",
  function_call: "assistant",
  system: "system",
  tool: "tool",
  function_response: "tool",
  observation: "tool",
};

/** How a row spells a conversation. */
export type ChatFormat = "messages" | "sharegpt" | "alpaca";

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (value === undefined) return "missing";
  if (typeof value === "object") return Array.isArray(value) ? "an array" : "an object";
  return `a ${typeof value}`;
}

/** Whether `value` is an object and no array. */
function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Half of a surrogate pair anywhere in a value, as only an escape can write it; undefined where there is none. */
function loneSurrogate(value: unknown): string | undefined {
  if (typeof value === "string") return /\p{Surrogate}/u.exec(value)?.[0];
  if (typeof value !== "object" || value === null) return undefined;
  for (const one of Object.values(value)) {
    const found = loneSurrogate(one);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * The turns of `value`, checked; `name` is what `refuse` is told that it is called. Fields that are null are left out,
 * as templates take them for said.
 */
export function messagesOf(value: unknown, name: string, refuse: (what: string) => never): Message[] {
  if (!Array.isArray(value)) return refuse(`${name} must be an array of messages and is ${kindOf(value)}`);
  if (value.length === 0) return refuse(`${name} is empty; a conversation has at least one message`);
  return value.map((one: unknown, i) => messageOf(one, `${name}[${i}]`, refuse));
}

function messageOf(value: unknown, name: string, refuse: (what: string) => never): Message {
  if (!isObject(value)) return refuse(`${name} must be an object and is ${kindOf(value)}`);
  const fields = Object.fromEntries(Object.entries(value).filter(([, one]) => (one ?? null) !== null));
  const { role, content, tool_calls: calls } = fields;
  if (typeof role !== "string") return refuse(`${name}.role must be a string and is ${kindOf(role)}`);
  if (!(ROLES as readonly string[]).includes(role))
    return refuse(`${name}.role is ${JSON.stringify(role)}; roles are ${ROLES.join(", ")}`);
  if (calls !== undefined && !Array.isArray(calls))
    return refuse(`${name}.tool_calls must be an array and is ${kindOf(calls)}`);
  const called = Array.isArray(calls) && calls.length > 0;
  const parts = Array.isArray(content) && content.every(isObject);
  if (typeof content !== "string" && !parts && !(content === undefined && called))
    return refuse(`${name}.content must be a string or an array of parts and is ${kindOf(content)}`);
  const half = loneSurrogate(fields);
  if (half !== undefined)
    return refuse(
      `${name} has half of a surrogate pair, \\u${half.charCodeAt(0).toString(16)}; write both halves`,
    );
  return fields as Message;
}

/** The tools of a row: an array of schemas, or such an array as text. */
export function toolsOf(value: unknown, refuse: (what: string) => never): readonly object[] | undefined {
  if ((value ?? null) === null || value === "") return undefined;
  let tools = value;
  if (typeof value === "string") {
    try {
      tools = JSON.parse(value);
    } catch {
      return refuse('"tools" is a text, and not JSON');
    }
  }
  if (!Array.isArray(tools) || !tools.every(isObject))
    return refuse(`"tools" must be an array of objects and is ${kindOf(tools)}`);
  return tools.length === 0 ? undefined : tools;
}

/** The conversation of a row's fields, and how they spell it; undefined where they have none. */
export function conversationOf(
  fields: Record<string, unknown>,
  refuse: (what: string) => never,
): (Conversation & { format: ChatFormat }) | undefined {
  if ("messages" in fields) {
    const messages = messagesOf(fields["messages"], '"messages"', refuse);
    return { messages, tools: toolsOf(fields["tools"], refuse), format: "messages" };
  }
  if ("conversations" in fields) return shareGpt(fields, refuse);
  if ("instruction" in fields) return alpaca(fields, refuse);
  return undefined;
}

function shareGpt(
  fields: Record<string, unknown>,
  refuse: (what: string) => never,
): Conversation & { format: ChatFormat } {
  const name = '"conversations"';
  const given = fields["conversations"];
  const tools = toolsOf(fields["tools"], refuse);
  const spoken = Array.isArray(given) && given.some((one) => isObject(one) && "from" in one);
  if (!spoken) return { messages: messagesOf(given, name, refuse), tools, format: "messages" };
  const turns = given.map((one: unknown, i) => {
    if (!isObject(one)) return refuse(`${name}[${i}] must be an object and is ${kindOf(one)}`);
    const { from, value } = one;
    const role = typeof from === "string" && Object.hasOwn(SPEAKERS, from) ? SPEAKERS[from] : undefined;
    if (role === undefined) {
      const known = Object.keys(SPEAKERS).join(", ");
      return refuse(`${name}[${i}].from is ${JSON.stringify(from) ?? "missing"}; speakers are ${known}`);
    }
    if (typeof value !== "string")
      return refuse(`${name}[${i}].value must be a string and is ${kindOf(value)}`);
    return { role, content: value };
  });
  const { system } = fields;
  if (typeof system === "string" && system !== "" && turns[0]?.role !== "system")
    turns.unshift({ role: "system", content: system });
  return { messages: messagesOf(turns, name, refuse), tools, format: "sharegpt" };
}

function alpaca(
  fields: Record<string, unknown>,
  refuse: (what: string) => never,
): Conversation & { format: ChatFormat } {
  const text = (name: string, needed: boolean): string => {
    const value = fields[name] ?? (needed ? undefined : "");
    if (typeof value === "string") return value;
    return refuse(
      value === undefined
        ? `the field "${name}" is missing beside "instruction"`
        : `"${name}" must be a string and is ${kindOf(value)}`,
    );
  };
  const [instruction, input, output, system] = [
    text("instruction", true),
    text("input", false),
    text("output", true),
    text("system", false),
  ];
  const messages = [
    ...(system === "" ? [] : [{ role: "system", content: system }]),
    { role: "user", content: input === "" ? instruction : `${instruction}\n\n${input}` },
    { role: "assistant", content: output },
  ];
  return { messages: messagesOf(messages, '"instruction"', refuse), format: "alpaca" };
}
