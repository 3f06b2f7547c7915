/** Conversations for chat templates. */
import { didYouMean } from "../arguments/suggest.js";
import { NearNames } from "../arguments/near-names.js";

/** A turn of a conversation. */
export interface Message {
  /** The speaker's role: `system`, `user`, `assistant`, `tool`. */
  role: string;
  /**
   * The content: a text, or parts `{ type: "text", text }`, which are joined. It is optional for an assistant that
   * calls tools.
   */
  content?: string | readonly object[] | null | undefined;
  /** Other fields that the template reads, such as `tool_calls`. */
  [field: string]: unknown;
}

/** Messages, and the tools that the assistant may call. */
export interface Conversation {
  readonly messages: readonly Message[];
  /** JSON schemas of the tools; undefined for none. */
  readonly tools?: readonly object[] | undefined;
}

/** The supported roles. */
const ROLES = ["system", "developer", "user", "assistant", "tool", "function", "ipython"] as const;

/** Roles by the speaker names of ShareGPT rows (`from` and `value`). */
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

/** The format of a row's conversation. */
export type ChatFormat = "messages" | "sharegpt" | "alpaca" | "prompt";

/** A row's conversation, with its format and weights. */
export interface RowConversation extends Conversation {
  format: ChatFormat;
  /** Indices of the messages with `weight` 0; undefined if there are none. */
  unweighted?: readonly number[] | undefined;
  /** The number of messages that form the prompt; undefined where the row does not separate it. */
  promptMessages?: number | undefined;
}

/** Names the type of a value, for messages. */
export function describeKind(value: unknown): string {
  if (value === null) return "null";
  if (value === undefined) return "nothing";
  if (typeof value === "object") return Array.isArray(value) ? "an array" : "an object";
  return `a ${typeof value}`;
}

/** Whether `value` is an object and not an array. */
function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Finds a lone surrogate in a value, which only an escape can produce; undefined where there is none. */
function findLoneSurrogate(value: unknown): string | undefined {
  if (typeof value === "string") return /\p{Surrogate}/u.exec(value)?.[0];
  if (typeof value !== "object" || value === null) return undefined;
  for (const part of Object.values(value)) {
    const found = findLoneSurrogate(part);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * Checks and returns the messages in `value`; `name` is its name in errors. Null fields are dropped, since templates
 * treat them as present.
 */
export function parseMessages(value: unknown, name: string, refuse: (what: string) => never): Message[] {
  if (!Array.isArray(value))
    return refuse(`${name} must be an array of messages, got ${describeKind(value)}`);
  if (value.length === 0) return refuse(`${name} is empty; a conversation has at least one message`);
  return value.map((message: unknown, i) => parseMessage(message, `${name}[${i}]`, refuse));
}

/**
 * Message fields that affect training or the template's text, checked for misspellings. Other fields may have any name.
 */
const MESSAGE_FIELDS = ["role", "content", "weight", "tool_calls", "tool_call_id"];
const NEAR_FIELDS = new NearNames(MESSAGE_FIELDS);
const NEAR_TURN_FIELDS = new NearNames(["from", "value", "weight"]);

function checkFields(
  fields: Record<string, unknown>,
  name: string,
  known: NearNames,
  refuse: (what: string) => never,
): void {
  const near = known.findMisspelled(Object.keys(fields));
  if (near === undefined) return;
  refuse(
    `${name} has the unknown field ${JSON.stringify(near.name)} (did you mean ${near.meant}?); rename or remove it`,
  );
}

function parseMessage(value: unknown, name: string, refuse: (what: string) => never): Message {
  if (!isObject(value)) return refuse(`${name} must be an object, got ${describeKind(value)}`);
  const fields = Object.fromEntries(Object.entries(value).filter(([, field]) => (field ?? null) !== null));
  checkFields(fields, name, NEAR_FIELDS, refuse);
  const { role } = fields;
  if (typeof role !== "string") return refuse(`${name}.role must be a string, got ${describeKind(role)}`);
  if (!(ROLES as readonly string[]).includes(role))
    return refuse(
      `${name}.role is ${JSON.stringify(role)}${didYouMean(role, ROLES)}; roles are ${ROLES.join(", ")}`,
    );
  const media = findMediaField(fields);
  if (media !== undefined)
    return refuse(
      `${name}.${media} contains media, but only text can be used; remove the message or the field`,
    );
  if ("function_call" in fields)
    return refuse(`${name}.function_call is OpenAI's old form; write the call as tool_calls`);
  const calls = parseCalls(fields["tool_calls"], `${name}.tool_calls`, refuse);
  if (calls !== undefined) fields["tool_calls"] = calls;
  const content = parseContent(value["content"], `${name}.content`, calls !== undefined, refuse);
  if (content === undefined) delete fields["content"];
  else fields["content"] = content;
  checkWeight(fields, name, refuse);
  const half = findLoneSurrogate(fields);
  if (half !== undefined)
    return refuse(
      `${name} has half of a surrogate pair, \\u${half.charCodeAt(0).toString(16)}; write both halves`,
    );
  return fields as Message;
}

/** Types of text parts; the last two are from OpenAI's Responses API. */
const TEXT_PARTS = ["text", "input_text", "output_text"];

/** Returns a message's content as one text, with text parts concatenated; undefined if it has only a tool call. */
function parseContent(
  content: unknown,
  name: string,
  called: boolean,
  refuse: (what: string) => never,
): string | undefined {
  if (typeof content === "string") return content;
  if (called && ((content ?? null) === null || (Array.isArray(content) && content.length === 0)))
    return undefined;
  if (!Array.isArray(content) || content.length === 0) {
    const is = Array.isArray(content) ? "an empty array" : describeKind(content);
    return refuse(`${name} must be a string or an array of text parts, got ${is}`);
  }
  return content.map((part, i) => readPartText(part, `${name}[${i}]`, refuse)).join("");
}

function readPartText(part: unknown, name: string, refuse: (what: string) => never): string {
  if (!isObject(part))
    return refuse(`${name} must be {"type": "text", "text": …}, got ${describeKind(part)}`);
  const { type, text } = part;
  if (!TEXT_PARTS.includes(type as string)) {
    const is = type === undefined ? "has no type" : `is of type ${JSON.stringify(type)}`;
    return refuse(`${name} ${is}; only parts of type "text" can be used`);
  }
  const media = findMediaField(part);
  if (media !== undefined)
    return refuse(`${name}.${media} contains media; only parts of type "text" can be used`);
  return typeof text === "string" ? text : refuse(`${name}.text must be a string, got ${describeKind(text)}`);
}

/**
 * Returns the tool calls of a message; undefined if there are none. OpenAI's arguments are JSON text, which is parsed
 * here, as in vLLM and llama.cpp, because templates serialise the arguments themselves.
 */
function parseCalls(calls: unknown, name: string, refuse: (what: string) => never): object[] | undefined {
  if (calls === undefined) return undefined;
  if (!Array.isArray(calls)) return refuse(`${name} must be an array, got ${describeKind(calls)}`);
  if (calls.length === 0) return undefined;
  return calls.map((call: unknown, i) => {
    if (!isObject(call)) return refuse(`${name}[${i}] must be an object, got ${describeKind(call)}`);
    const { function: called } = call;
    if (isObject(called))
      return { ...call, function: parseArguments(called, `${name}[${i}].function`, refuse) };
    return parseArguments(call, `${name}[${i}]`, refuse);
  });
}

function parseArguments(
  call: Record<string, unknown>,
  name: string,
  refuse: (what: string) => never,
): Record<string, unknown> {
  const { arguments: text } = call;
  if (typeof text !== "string") return call;
  let parsed: unknown = {};
  try {
    // Some servers write missing arguments as an empty text.
    if (text.trim() !== "") parsed = JSON.parse(text);
  } catch {
    return refuse(`${name}.arguments must be JSON`);
  }
  if (!isObject(parsed)) return refuse(`${name}.arguments must be an object, got ${describeKind(parsed)}`);
  return { ...call, arguments: parsed };
}

/** Checks OpenAI's `weight`, which must be 0 or 1, and removes it if it is 1. */
function checkWeight(fields: Record<string, unknown>, name: string, refuse: (what: string) => never): void {
  const { role, weight } = fields;
  if (weight === undefined) return;
  if (weight !== 0 && weight !== 1)
    refuse(`${name}.weight must be 0 or 1, got ${JSON.stringify(weight) ?? describeKind(weight)}`);
  if (weight === 0 && role !== "assistant")
    refuse(
      `${name}.weight is 0, but the role is ${JSON.stringify(role)}; only assistant turns have a weight`,
    );
  if (weight === 1) delete fields["weight"];
}

/** Returns the messages without weights, and the indices of those with weight 0. */
export function separateWeights(
  messages: readonly Message[],
): Pick<RowConversation, "messages" | "unweighted"> {
  const unweighted = messages.flatMap(({ weight }, i) => (weight === 0 ? [i] : []));
  if (unweighted.length === 0) return { messages };
  const plain = messages.map((message) => {
    const { weight, ...rest } = message;
    return weight === undefined ? message : (rest as Message);
  });
  return { messages: plain, unweighted };
}

/** Media fields of rows, messages and content parts, which text models cannot use. */
const MEDIA = ["image", "images", "video", "videos", "audio", "audios"];

/** Returns the name of a non-empty media field; undefined where there is none. */
function findMediaField(fields: Record<string, unknown>): string | undefined {
  return MEDIA.find((name) => {
    const value = fields[name] ?? null;
    return value !== null && value !== "" && !(Array.isArray(value) && value.length === 0);
  });
}

/** Rejects a conversation with media. */
function refuseMedia(fields: Record<string, unknown>, refuse: (what: string) => never): void {
  const name = findMediaField(fields);
  if (name !== undefined)
    refuse(`the row has "${name}", but only its text can be used; remove the row or the field`);
}

/** Returns the tools of a row: an array of schemas, or its JSON text. */
export function parseTools(value: unknown, refuse: (what: string) => never): readonly object[] | undefined {
  if ((value ?? null) === null || value === "") return undefined;
  let tools = value;
  if (typeof value === "string") {
    try {
      tools = JSON.parse(value);
    } catch {
      return refuse('"tools" must be JSON');
    }
  }
  if (!Array.isArray(tools) || !tools.every(isObject))
    return refuse(`"tools" must be an array of objects, got ${describeKind(tools)}`);
  return tools.length === 0 ? undefined : tools;
}

/** Returns the conversation in a row's fields, with its format; undefined where there is none. */
export function parseConversation(
  fields: Record<string, unknown>,
  refuse: (what: string) => never,
): RowConversation | undefined {
  if (["messages", "conversations", "instruction"].some((name) => name in fields))
    refuseMedia(fields, refuse);
  if ("messages" in fields) {
    const messages = addSystem(parseMessages(fields["messages"], '"messages"', refuse), fields, refuse);
    return { ...separateWeights(messages), tools: parseTools(fields["tools"], refuse), format: "messages" };
  }
  if ("conversations" in fields) return convertShareGpt(fields, refuse);
  if ("instruction" in fields) return convertAlpaca(fields, refuse);
  return undefined;
}

/** Adds the row's `system` as the first message. Calls `refuse` if the conversation begins with another one. */
function addSystem(
  messages: readonly Message[],
  { system }: Record<string, unknown>,
  refuse: (what: string) => never,
): readonly Message[] {
  if ((system ?? null) === null || system === "") return messages;
  if (typeof system !== "string") return refuse(`"system" must be a string, got ${describeKind(system)}`);
  const [first] = messages;
  if (first?.role !== "system" && first?.role !== "developer")
    return [...parseMessages([{ role: "system", content: system }], '"system"', refuse), ...messages];
  if (first.content === system) return messages;
  return refuse('the row has a "system" that differs from its system message; remove one of them');
}

/** Returns the turns of Alpaca's `history`: pairs of a request and its answer, before the row's own. */
function parseHistory(value: unknown, refuse: (what: string) => never): Message[] {
  if ((value ?? null) === null || value === "") return [];
  const isPair = (pair: unknown): pair is [string, string] =>
    Array.isArray(pair) && pair.length === 2 && pair.every((text) => typeof text === "string");
  if (!Array.isArray(value) || !value.every(isPair))
    return refuse('"history" must be an array of pairs, [["request", "answer"], …]');
  return value.flatMap(([user, assistant]) => [
    { role: "user", content: user },
    { role: "assistant", content: assistant },
  ]);
}

function convertShareGpt(fields: Record<string, unknown>, refuse: (what: string) => never): RowConversation {
  const name = '"conversations"';
  const given = fields["conversations"];
  const tools = parseTools(fields["tools"], refuse);
  const spoken = Array.isArray(given) && given.some((turn) => isObject(turn) && "from" in turn);
  if (!spoken) {
    const messages = addSystem(parseMessages(given, name, refuse), fields, refuse);
    return { ...separateWeights(messages), tools, format: "messages" };
  }
  const turns: Record<string, unknown>[] = given.map((turn: unknown, i) => {
    if (!isObject(turn)) return refuse(`${name}[${i}] must be an object, got ${describeKind(turn)}`);
    checkFields(turn, `${name}[${i}]`, NEAR_TURN_FIELDS, refuse);
    const { from, value, weight } = turn;
    const role = typeof from === "string" && Object.hasOwn(SPEAKERS, from) ? SPEAKERS[from] : undefined;
    if (role === undefined) {
      const known = Object.keys(SPEAKERS).join(", ");
      return refuse(`${name}[${i}].from is ${JSON.stringify(from) ?? "missing"}; speakers are ${known}`);
    }
    if (typeof value !== "string")
      return refuse(`${name}[${i}].value must be a string, got ${describeKind(value)}`);
    return { role, content: value, ...(weight !== undefined && { weight }) };
  });
  const messages = addSystem(parseMessages(turns, name, refuse), fields, refuse);
  return { ...separateWeights(messages), tools, format: "sharegpt" };
}

function convertAlpaca(fields: Record<string, unknown>, refuse: (what: string) => never): RowConversation {
  const text = (name: string, needed: boolean): string => {
    const value = fields[name] ?? (needed ? undefined : "");
    if (typeof value === "string") return value;
    return refuse(
      value === undefined
        ? `the field "${name}" is missing next to "instruction"`
        : `"${name}" must be a string, got ${describeKind(value)}`,
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
    ...parseHistory(fields["history"], refuse),
    { role: "user", content: input === "" ? instruction : `${instruction}\n\n${input}` },
    { role: "assistant", content: output },
  ];
  const tools = parseTools(fields["tools"], refuse);
  return {
    messages: parseMessages(messages, '"instruction"', refuse),
    ...(tools && { tools }),
    format: "alpaca",
  };
}
