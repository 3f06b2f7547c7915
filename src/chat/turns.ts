/** Where in the text of a conversation the assistant speaks. */
import type { Conversation, Message } from "./messages.js";
import type { ChatTemplate, Span } from "./template.js";

/** Characters of a turn. */
export interface Turn extends Span {
  /** Whether the end is known to the token alone: one that goes on behind it is no part of the turn. */
  rough?: boolean | undefined;
}

/** A conversation's text and the assistant's turns in it. */
export interface Rendered {
  text: string;
  turns: Turn[];
  /** Turns of the assistant that were not found in the text, and so are not among them. */
  lost: number;
}

/**
 * The text of a conversation, and the turns of the assistant in it: by the template's own marks, where it has them, and
 * else by comparing the text with those of parts of the conversation. Where a turn but the last is not found so, the last
 * alone is given.
 *
 * Errors: `ERR_CHAT_TEMPLATE` where the template refuses the conversation, fails, or does not come to an end.
 */
export function renderTurns(template: ChatTemplate, conversation: Conversation): Rendered {
  const text = template.render(conversation);
  const marked = template.markedSpans(conversation, text);
  if (marked !== undefined) return { text, turns: marked, lost: 0 };
  const parts = new Parts(template, conversation, text);
  const places = conversation.messages.flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  const turns: Turn[] = [];
  let lost = 0;
  for (const place of places) {
    const turn = parts.turn(place, turns.at(-1)?.end ?? 0);
    if (turn === undefined) lost++;
    else turns.push(turn);
  }
  if (lost === 0) return { text, turns, lost };
  const last = parts.turn(places.at(-1) as number, 0);
  return {
    text,
    turns: last === undefined ? [] : [last],
    lost: places.length - (last === undefined ? 0 : 1),
  };
}

/** Two contents that begin and end with different letters. */
const CONTENTS = ["Qv", "Zk"] as const;

/** The text of a conversation beside those of parts of it. */
class Parts {
  constructor(
    private readonly template: ChatTemplate,
    private readonly conversation: Conversation,
    private readonly text: string,
  ) {}

  /** The turn of message `place`, which begins at `from` or later. */
  turn(place: number, from: number): Turn | undefined {
    const varied = this.#varied(place);
    const start = this.#prefix(place, true) ?? varied?.start;
    const exact = this.#prefix(place + 1, false);
    const end = exact ?? (varied && this.#closed(place, varied.end));
    if (start === undefined || end === undefined || start < from || end <= start) return undefined;
    return exact === undefined ? { start, end, rough: true } : { start, end };
  }

  /** How long the text of the first `count` messages is, where the whole text begins with it. */
  #prefix(count: number, addGenerationPrompt: boolean): number | undefined {
    const { messages } = this.conversation;
    if (count === messages.length && !addGenerationPrompt) return this.text.length;
    const part = this.#render(messages.slice(0, count), addGenerationPrompt);
    return part !== undefined && part !== "" && this.text.startsWith(part) ? part.length : undefined;
  }

  /** Where the content of message `place` lies, found by what changes when it is another. */
  #varied(place: number): { start: number; end: number } | undefined {
    const { messages } = this.conversation;
    const { text } = this;
    const [one, other] = CONTENTS.map((content) =>
      this.#render(withContent(messages, place, content), false),
    );
    // A template that passes the content over tells nothing by it.
    if (one === undefined || other === undefined || one === other) return undefined;
    const start = commonStart(one, other);
    const behind = commonEnd(one, other);
    if (!text.startsWith(one.slice(0, start)) || !text.endsWith(one.slice(one.length - behind)))
      return undefined;
    return { start, end: text.length - behind };
  }

  /**
   * Where the turn ends whose content ends at `at`: behind what closes a turn that is the last, by itself or, where the
   * template refuses that, at the end of the conversation.
   */
  #closed(place: number, at: number): number | undefined {
    const closing = this.#closing(place) ?? this.#closing(this.conversation.messages.length - 1);
    if (closing === undefined) return undefined;
    const common = commonStart(closing, this.text.slice(at));
    return common === 0 && closing !== "" ? undefined : at + common;
  }

  /** What follows the content of message `place` where it is the last. */
  #closing(place: number): string | undefined {
    const { messages } = this.conversation;
    if (messages[place]?.role !== "assistant") return undefined;
    const [content] = CONTENTS;
    const alone = this.#render(withContent(messages.slice(0, place + 1), place, content), false);
    const found = alone?.lastIndexOf(content) ?? -1;
    return found < 0 ? undefined : alone?.slice(found + content.length);
  }

  /** The text of these messages; undefined where the template refuses them. */
  #render(messages: readonly Message[], addGenerationPrompt: boolean): string | undefined {
    try {
      return this.template.render({ ...this.conversation, messages }, { addGenerationPrompt });
    } catch {
      return undefined;
    }
  }
}

function withContent(messages: readonly Message[], place: number, content: string): Message[] {
  return messages.map((message, i) => (i === place ? { ...message, content } : message));
}

/** How many characters both begin with. */
function commonStart(a: string, b: string): number {
  let count = 0;
  while (count < a.length && count < b.length && a.charCodeAt(count) === b.charCodeAt(count)) count++;
  return count;
}

/** How many characters both end with. */
function commonEnd(a: string, b: string): number {
  let count = 0;
  while (
    count < a.length &&
    count < b.length &&
    a.charCodeAt(a.length - 1 - count) === b.charCodeAt(b.length - 1 - count)
  )
    count++;
  return count;
}
