/** Where in the text of a conversation the assistant speaks. */
import { ignoredParts, type Ignored } from "./ignored.js";
import type { Conversation, Message } from "./messages.js";
import type { ChatTemplate, Span } from "./template.js";

/** Characters of a turn. */
export interface Turn extends Span {
  /** Whether the end is known to the token alone: one that goes on behind it is no part of the turn. */
  rough?: boolean | undefined;
  /** Whether the message's weight is 0: the turn is not trained on. */
  unweighted?: boolean | undefined;
}

/** A conversation's text and the assistant's turns in it. */
export interface Rendered {
  text: string;
  turns: Turn[];
  /** Turns of the assistant that were not found in the text, and so are not among them. */
  lost: number;
  /** What the conversation has and the template does not write. */
  ignored: Ignored;
}

/** A conversation, and the places of the messages whose weight is 0. */
type Weighted = Conversation & { readonly unweighted?: readonly number[] | undefined };

/**
 * The text of a conversation, and the turns of the assistant in it: by the template's own marks, where it has them, and
 * else by comparing the text with those of parts of the conversation. Where a turn but the last is not found so, the last
 * alone is given.
 *
 * Errors: `ERR_CHAT_TEMPLATE` where the template refuses the conversation, fails, or does not come to an end.
 */
export function renderTurns(
  template: ChatTemplate,
  { unweighted = [], ...conversation }: Weighted,
): Rendered {
  const text = template.render(conversation);
  const ignored = ignoredParts(template, conversation, text);
  const parts = new Parts(template, conversation, text);
  const places = conversation.messages.flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  const marked = template.markedSpans(conversation, text);
  const found =
    marked === undefined
      ? comparedTurns(parts, places, unweighted)
      : markedTurns(marked, parts, places, unweighted);
  return { text, ...found, ignored };
}

type Found = Pick<Rendered, "turns" | "lost">;

/** The spans that the template marks; spans of messages without weight are labelled. */
function markedTurns(
  marked: readonly Span[],
  parts: Parts,
  places: readonly number[],
  unweighted: readonly number[],
): Found {
  if (unweighted.length === 0) return { turns: [...marked], lost: 0 };
  if (marked.length === places.length) {
    const turns = marked.map((span, i) => weightedTurn(span, places[i] as number, unweighted));
    return { turns, lost: 0 };
  }
  // The marks do not say which message they belong to: compare texts to find out.
  const excluded = unweighted.map((place) => parts.turn(place, 0));
  if (excluded.includes(undefined)) return { turns: [], lost: places.length };
  const overlaps = (span: Span): boolean =>
    excluded.some((turn) => turn !== undefined && turn.start < span.end && span.start < turn.end);
  return { turns: marked.map((span) => (overlaps(span) ? { ...span, unweighted: true } : span)), lost: 0 };
}

/** The turns that comparing texts finds; the last alone if any other is not found. */
function comparedTurns(parts: Parts, places: readonly number[], unweighted: readonly number[]): Found {
  const turns: Turn[] = [];
  let lost = 0;
  for (const place of places) {
    const turn = parts.turn(place, turns.at(-1)?.end ?? 0);
    if (turn === undefined) lost++;
    else turns.push(weightedTurn(turn, place, unweighted));
  }
  if (lost === 0) return { turns, lost };
  const place = places.at(-1) as number;
  const last = parts.turn(place, 0);
  return {
    turns: last === undefined ? [] : [weightedTurn(last, place, unweighted)],
    lost: places.length - (last === undefined ? 0 : 1),
  };
}

function weightedTurn(turn: Turn, place: number, unweighted: readonly number[]): Turn {
  return unweighted.includes(place) ? { ...turn, unweighted: true } : turn;
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
