/** Locates the assistant's turns in the text of a conversation. */
import { findIgnoredParts, type Ignored } from "./ignored.js";
import type { Conversation, Message } from "./messages.js";
import type { ChatTemplate, Span } from "./template.js";

/** The range of a turn. */
export interface Turn extends Span {
  /** Whether the end is inexact: a token that crosses it is not part of the turn. */
  rough?: boolean | undefined;
  /** Whether the message's weight is 0, so that the turn is not trained on. */
  unweighted?: boolean | undefined;
}

/** The assistant's turns in a conversation's text. */
export interface Located {
  turns: Turn[];
  /** The number of assistant turns that were not found in the text. */
  lost: number;
  /** Parts of the conversation that the template ignores. */
  ignored: Ignored;
}

/** A conversation, and the indices of the messages with weight 0. */
type Weighted = Conversation & { readonly unweighted?: readonly number[] | undefined };

/**
 * Locates the assistant's turns in `text`, the rendered conversation: by the template's `generation` tags where it has
 * them, else by comparing the text with renderings of parts of the conversation. If any turn except the last is not found
 * by comparison, only the last is returned. Turns after the first one that ends beyond `within` may be missing.
 */
export function locateTurns(
  template: ChatTemplate,
  { unweighted = [], ...conversation }: Weighted,
  text: string,
  within = Infinity,
): Located {
  const ignored = findIgnoredParts(template, conversation, text);
  const parts = new Parts(template, conversation, text);
  const places = conversation.messages.flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  const marked = template.findMarkedSpans(conversation, text);
  const found =
    marked === undefined
      ? compareTurns(parts, places, { unweighted, within })
      : findMarkedTurns(marked, parts, places, unweighted);
  return { ...found, ignored };
}

type Found = Pick<Located, "turns" | "lost">;

/** Converts the tagged ranges to turns, and marks turns with weight 0. */
function findMarkedTurns(
  marked: readonly Span[],
  parts: Parts,
  places: readonly number[],
  unweighted: readonly number[],
): Found {
  if (unweighted.length === 0) return { turns: [...marked], lost: 0 };
  if (marked.length === places.length) {
    const turns = marked.map((span, i) => weightTurn(span, places[i] as number, unweighted));
    return { turns, lost: 0 };
  }
  // The tags do not identify their messages, so comparison locates the turns with weight 0.
  const excluded = unweighted.map((place) => parts.locateTurn(place, 0));
  if (excluded.includes(undefined)) return { turns: [], lost: places.length };
  const overlaps = (span: Span): boolean =>
    excluded.some((turn) => turn !== undefined && turn.start < span.end && span.start < turn.end);
  return { turns: marked.map((span) => (overlaps(span) ? { ...span, unweighted: true } : span)), lost: 0 };
}

/** Locates turns by comparison; only the last one if any other is not found. */
function compareTurns(
  parts: Parts,
  places: readonly number[],
  { unweighted, within }: { unweighted: readonly number[]; within: number },
): Found {
  const turns: Turn[] = [];
  let lost = 0;
  for (const place of places) {
    const turn = parts.locateTurn(place, turns.at(-1)?.end ?? 0);
    if (turn === undefined) lost++;
    else turns.push(weightTurn(turn, place, unweighted));
    if (turn !== undefined && turn.end > within) break;
  }
  if (lost === 0) return { turns, lost };
  const place = places.at(-1) as number;
  const last = parts.locateTurn(place, 0);
  return {
    turns: last === undefined ? [] : [weightTurn(last, place, unweighted)],
    lost: places.length - (last === undefined ? 0 : 1),
  };
}

function weightTurn(turn: Turn, place: number, unweighted: readonly number[]): Turn {
  return unweighted.includes(place) ? { ...turn, unweighted: true } : turn;
}

/** Two contents that differ in their first and last characters. */
const CONTENTS = ["Qv", "Zk"] as const;

/** Compares a conversation's text with renderings of parts of it. */
class Parts {
  constructor(
    private readonly template: ChatTemplate,
    private readonly conversation: Conversation,
    private readonly text: string,
  ) {}

  /** Locates the turn of message `place`, beginning at `from` or later. */
  locateTurn(place: number, from: number): Turn | undefined {
    const prefix = this.#measurePrefix(place, true);
    const exact = this.#measurePrefix(place + 1, false);
    const varied = prefix === undefined || exact === undefined ? this.#locateByReplacing(place) : undefined;
    const start = prefix ?? varied?.start;
    const end = exact ?? (varied && this.#findTurnEnd(place, varied.end));
    if (start === undefined || end === undefined || start < from || end <= start) return undefined;
    return exact === undefined ? { start, end, rough: true } : { start, end };
  }

  /** Returns the length of the rendering of the first `count` messages, if the whole text begins with it. */
  #measurePrefix(count: number, addGenerationPrompt: boolean): number | undefined {
    const { messages } = this.conversation;
    if (count === messages.length && !addGenerationPrompt) return this.text.length;
    const part = this.#render(messages.slice(0, count), addGenerationPrompt);
    return part !== undefined && part !== "" && this.text.startsWith(part) ? part.length : undefined;
  }

  /** Locates the content of message `place` by replacing it and comparing the renderings. */
  #locateByReplacing(place: number): { start: number; end: number } | undefined {
    const { messages } = this.conversation;
    const { text } = this;
    const [first, other] = CONTENTS.map((content) =>
      this.#render(replaceContent(messages, place, content), false),
    );
    // A template that ignores the content reveals nothing.
    if (first === undefined || other === undefined || first === other) return undefined;
    const start = countCommonStart(first, other);
    const behind = countCommonEnd(first, other);
    if (!text.startsWith(first.slice(0, start)) || !text.endsWith(first.slice(first.length - behind)))
      return undefined;
    return { start, end: text.length - behind };
  }

  /**
   * Returns the end of the turn whose content ends at `contentEnd`: after the closing markup of a final turn, taken from this
   * message or, where the template rejects that, from the conversation's last.
   */
  #findTurnEnd(place: number, contentEnd: number): number | undefined {
    const closing = this.#findClosing(place) ?? this.#findClosing(this.conversation.messages.length - 1);
    if (closing === undefined) return undefined;
    const common = countCommonStart(closing, this.text.slice(contentEnd));
    return common === 0 && closing !== "" ? undefined : contentEnd + common;
  }

  /** Returns the text after the content of message `place` when it is the last. */
  #findClosing(place: number): string | undefined {
    const { messages } = this.conversation;
    if (messages[place]?.role !== "assistant") return undefined;
    const [content] = CONTENTS;
    const alone = this.#render(replaceContent(messages.slice(0, place + 1), place, content), false);
    const found = alone?.lastIndexOf(content) ?? -1;
    return found < 0 ? undefined : alone?.slice(found + content.length);
  }

  /** Renders messages; undefined where the template rejects them. */
  #render(messages: readonly Message[], addGenerationPrompt: boolean): string | undefined {
    try {
      return this.template.render({ ...this.conversation, messages }, { addGenerationPrompt });
    } catch {
      return undefined;
    }
  }
}

function replaceContent(messages: readonly Message[], place: number, content: string): Message[] {
  return messages.map((message, i) => (i === place ? { ...message, content } : message));
}

/** Returns the length of the common prefix. */
function countCommonStart(a: string, b: string): number {
  let count = 0;
  while (count < a.length && count < b.length && a.charCodeAt(count) === b.charCodeAt(count)) count++;
  return count;
}

/** Returns the length of the common suffix. */
function countCommonEnd(a: string, b: string): number {
  let count = 0;
  while (
    count < a.length &&
    count < b.length &&
    a.charCodeAt(a.length - 1 - count) === b.charCodeAt(b.length - 1 - count)
  )
    count++;
  return count;
}
