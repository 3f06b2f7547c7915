/** Renders conversations with a model's chat template. */
import { LowrankError } from "../errors.js";
import { BoundedInterpreter, createRange, OutOfBounds, limitTime } from "./bounded.js";
import { Environment, parse, type Program } from "./jinja.js";
import type { Conversation, Message } from "./messages.js";
import { formatTime } from "./strftime.js";

/** A range of a text, in UTF-16 units, without `end`. */
export interface Span {
  start: number;
  end: number;
}

/** Options of `render`. */
export interface RenderOptions {
  /** Whether to append the beginning of an assistant turn; false. */
  addGenerationPrompt?: boolean | undefined;
  /** Additional variables for the template, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>> | undefined;
}

/** The error thrown by `raise_exception` in a template. */
class Raised extends Error {}

/** Matches a `generation` tag, which marks the assistant's text, with its whitespace control. */
const GENERATION = /\{%(-?)\s*(end)?generation\s*(-?)%\}/g;
/** Pairs of private-use characters; a pair that does not occur in the text marks the assistant's turns. */
const SENTINELS = Array.from(
  { length: 8 },
  (_, i) => [String.fromCharCode(0xf4d0 + 2 * i), String.fromCharCode(0xf4d1 + 2 * i)] as const,
);

/** Field names of reasoning; templates read the first, and some the second. */
const REASONING = ["reasoning_content", "thinking", "reasoning"] as const;

/** A compiled template, with its special tokens. */
export class ChatTemplate {
  readonly #source: string;
  readonly #program: Program;
  readonly #marked = new Map<number, Program>();
  /** Whether it has `generation` tags around the assistant's text. */
  readonly marksTurns: boolean;

  /**
   * Compiles the template `source`; `where` is its name in errors.
   *
   * Throws `ERR_CHAT_TEMPLATE` for a template that cannot be parsed.
   */
  constructor(
    source: string,
    private readonly specialTokens: Readonly<Record<string, string>>,
    private readonly where: string,
  ) {
    this.#source = source.replace(/\r\n?/g, "\n");
    this.#program = this.#compile(this.#source);
    this.marksTurns = this.#source.search(GENERATION) >= 0;
  }

  /** Whether the template distinguishes `role`, which it then has as a string. */
  hasRole(role: string): boolean {
    return new RegExp(`(["'])${role}\\1`).test(this.#code);
  }

  /** Whether the template reads the variable `name`. */
  reads(name: string): boolean {
    return new RegExp(`\\b${name}\\b`).test(this.#code);
  }

  /** The source without comments. */
  get #code(): string {
    return this.#source.replaceAll(/\{#[^]*?#\}/g, "");
  }

  /**
   * Renders a conversation.
   *
   * Throws `ERR_CHAT_TEMPLATE` where the template rejects it, fails, or does not terminate.
   */
  render(conversation: Conversation, options: RenderOptions = {}): string {
    return this.#run(this.#program, conversation, options);
  }

  /**
   * Returns the ranges of `text`, the rendered conversation, inside `generation` tags; undefined where the template has
   * no tags, or where marking them changes the text.
   */
  findMarkedSpans(conversation: Conversation, text: string): Span[] | undefined {
    if (!this.marksTurns) return undefined;
    const which = SENTINELS.findIndex(([start, end]) => !text.includes(start) && !text.includes(end));
    const sentinels = SENTINELS[which];
    if (sentinels === undefined) return undefined;
    let program = this.#marked.get(which);
    if (program === undefined) {
      program = this.#compile(insertSentinels(this.#source, sentinels));
      this.#marked.set(which, program);
    }
    const { plain, spans } = extractSpans(this.#run(program, conversation, {}), sentinels);
    return plain === text ? spans : undefined;
  }

  #compile(source: string): Program {
    try {
      return parse(source);
    } catch (cause) {
      throw this.#createError(`cannot be read: ${readMessage(cause)}`, cause);
    }
  }

  /** Renders a conversation. A template that fails at a message without content gets an empty one. */
  #run(program: Program, conversation: Conversation, options: RenderOptions): string {
    try {
      return this.#evaluate(program, conversation, options);
    } catch (error) {
      const { cause } = error as LowrankError;
      const messages = fillContents(conversation.messages);
      if (cause instanceof Raised || cause instanceof OutOfBounds || messages === undefined) throw error;
      return this.#evaluate(program, { ...conversation, messages }, options);
    }
  }

  #evaluate(program: Program, { messages, tools }: Conversation, options: RenderOptions): string {
    const { addGenerationPrompt = false, variables = {} } = options;
    const environment = new Environment();
    const all = {
      ...createConstants(),
      ...this.specialTokens,
      messages: messages.map(copyReasoning),
      tools: tools ?? null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
      ...variables,
    };
    try {
      return limitTime(() => {
        for (const [name, value] of Object.entries(all)) environment.set(name, value);
        return String(new BoundedInterpreter(environment).run(program).value);
      });
    } catch (cause) {
      if (cause instanceof Raised) throw this.#createError(`refuses the messages: ${cause.message}`, cause);
      const why = cause instanceof OutOfBounds ? "was stopped" : "fails";
      throw this.#createError(`${why}: ${readMessage(cause)}`, cause);
    }
  }

  #createError(what: string, cause: unknown): LowrankError {
    return new LowrankError("ERR_CHAT_TEMPLATE", `${this.where}: the chat template ${what}`, { cause });
  }
}

function readMessage(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll("\n", " ");
}

/** The globals of every template, which the library leaves to its caller. */
function createConstants(): Record<string, unknown> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range: createRange,
    raise_exception: (message: unknown): never => {
      throw new Raised(String(message));
    },
    strftime_now: (format: string) => formatTime(new Date(), format),
  };
}

/** Gives messages without content an empty one; undefined if all have content. */
function fillContents(messages: readonly Message[]): Message[] | undefined {
  if (messages.every(({ content }) => (content ?? null) !== null)) return undefined;
  return messages.map((message) => ({ ...message, content: message.content ?? "" }));
}

/** Copies a message's reasoning to the field names that templates read. */
function copyReasoning(message: Message): Message {
  const name = REASONING.find((field) => (message[field] ?? null) !== null);
  if (name === undefined) return message;
  return { thinking: message[name], ...message, reasoning_content: message[name] };
}

/** Replaces each `generation` tag by a sentinel in a statement with the tag's whitespace control. */
function insertSentinels(source: string, [start, end]: readonly [string, string]): string {
  return source.replace(
    GENERATION,
    (_, left: string, ends: string | undefined, right: string) =>
      `{%${left} if true %}${ends === undefined ? start : end}{% endif ${right}%}`,
  );
}

/** Removes the sentinels from a text; returns the ranges between them, with nested ones merged. */
function extractSpans(
  text: string,
  [start, end]: readonly [string, string],
): { plain: string; spans: Span[] } {
  const spans: Span[] = [];
  let plain = "";
  let depth = 0;
  for (const part of text.split(new RegExp(`([${start}${end}])`))) {
    if (part === start) {
      if (depth++ === 0) spans.push({ start: plain.length, end: plain.length });
    } else if (part === end) {
      const last = spans.at(-1);
      if (--depth === 0 && last !== undefined) last.end = plain.length;
    } else {
      plain += part;
    }
  }
  return { plain, spans: spans.filter((span) => span.end > span.start) };
}
