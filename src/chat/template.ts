/** A model's chat template: makes the text of a conversation. */
import { LowrankError } from "../errors.js";
import { BoundedInterpreter, boundedRange, OutOfBounds, withinTime } from "./bounded.js";
import { Environment, parse, type Program } from "./jinja.js";
import type { Conversation, Message } from "./messages.js";
import { strftime } from "./strftime.js";

/** Characters of a text, from `start` up to `end`. */
export interface Span {
  start: number;
  end: number;
}

/** What `render` takes besides a conversation. */
export interface RenderOptions {
  /** Whether the text ends with what begins a turn of the assistant; false. */
  addGenerationPrompt?: boolean | undefined;
  /** Variables that the template reads besides, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>> | undefined;
}

/** What `raise_exception` in a template throws. */
class Raised extends Error {}

/** A mark of what the assistant generates, with its whitespace control. */
const GENERATION = /\{%(-?)\s*(end)?generation\s*(-?)%\}/g;
/** Pairs of characters of private use, of which one that a text has not is put around what is marked. */
const SENTINELS = Array.from(
  { length: 8 },
  (_, i) => [String.fromCharCode(0xf4d0 + 2 * i), String.fromCharCode(0xf4d1 + 2 * i)] as const,
);

/** Names that reasoning goes by; templates read the first, and some the second. */
const REASONING = ["reasoning_content", "thinking", "reasoning"] as const;

/** A template, compiled, with the special tokens that it writes. */
export class ChatTemplate {
  readonly #source: string;
  readonly #program: Program;
  readonly #marked = new Map<number, Program>();
  /** Whether it marks what the assistant generates. */
  readonly marksTurns: boolean;

  /**
   * `source` is the template's text, `where` what errors call it.
   *
   * Errors: `ERR_CHAT_TEMPLATE` for one that cannot be read.
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

  /**
   * The text of a conversation.
   *
   * Errors: `ERR_CHAT_TEMPLATE` where the template refuses it, fails, or does not come to an end.
   */
  render(conversation: Conversation, options: RenderOptions = {}): string {
    return this.#run(this.#program, conversation, options);
  }

  /**
   * Where in `text`, the conversation's, the template's marks say that the assistant generates; undefined where it has
   * no marks, or where the text with them is not the text without.
   */
  markedSpans(conversation: Conversation, text: string): Span[] | undefined {
    if (!this.marksTurns) return undefined;
    const which = SENTINELS.findIndex(([start, end]) => !text.includes(start) && !text.includes(end));
    const sentinels = SENTINELS[which];
    if (sentinels === undefined) return undefined;
    let program = this.#marked.get(which);
    if (program === undefined) {
      program = this.#compile(withSentinels(this.#source, sentinels));
      this.#marked.set(which, program);
    }
    const { plain, spans } = spansOf(this.#run(program, conversation, {}), sentinels);
    return plain === text ? spans : undefined;
  }

  #compile(source: string): Program {
    try {
      return parse(source);
    } catch (cause) {
      throw this.#failure(`cannot be read: ${messageOf(cause)}`, cause);
    }
  }

  #run(program: Program, { messages, tools }: Conversation, options: RenderOptions): string {
    const { addGenerationPrompt = false, variables = {} } = options;
    const environment = new Environment();
    const all = {
      ...constants(),
      ...this.specialTokens,
      messages: messages.map(withReasoning),
      tools: tools ?? null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
      ...variables,
    };
    try {
      return withinTime(() => {
        for (const [name, value] of Object.entries(all)) environment.set(name, value);
        return String(new BoundedInterpreter(environment).run(program).value);
      });
    } catch (cause) {
      if (cause instanceof Raised) throw this.#failure(`refuses the messages: ${cause.message}`, cause);
      const why = cause instanceof OutOfBounds ? "was stopped" : "fails";
      throw this.#failure(`${why}: ${messageOf(cause)}`, cause);
    }
  }

  #failure(what: string, cause: unknown): LowrankError {
    return new LowrankError("ERR_CHAT_TEMPLATE", `${this.where}: the chat template ${what}`, { cause });
  }
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll("\n", " ");
}

/** What every template can call and name. The library leaves these to who runs it. */
function constants(): Record<string, unknown> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range: boundedRange,
    raise_exception: (message: unknown): never => {
      throw new Raised(String(message));
    },
    strftime_now: (format: string) => strftime(new Date(), format),
  };
}

/** A message whose reasoning goes by the names that templates read. */
function withReasoning(message: Message): Message {
  const name = REASONING.find((one) => (message[one] ?? null) !== null);
  if (name === undefined) return message;
  return { thinking: message[name], ...message, reasoning_content: message[name] };
}

/** The source with a sentinel written at each mark, in a statement whose whitespace control is the mark's. */
function withSentinels(source: string, [start, end]: readonly [string, string]): string {
  return source.replace(
    GENERATION,
    (_, left: string, ends: string | undefined, right: string) =>
      `{%${left} if true %}${ends === undefined ? start : end}{% endif ${right}%}`,
  );
}

/** A text without its sentinels, and what they stood around; nested ones make one. */
function spansOf(text: string, [start, end]: readonly [string, string]): { plain: string; spans: Span[] } {
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
  return { plain, spans: spans.filter((one) => one.end > one.start) };
}
