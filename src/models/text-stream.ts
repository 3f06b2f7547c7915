/** Streams tokens with their text, holding back text that may still change, up to a stop string. */
import { LowrankError } from "../errors.js";
import type { ChosenLogprobs, TokenLogprob } from "./logprobs.js";
import { measureIncomplete } from "./token-bytes.js";
import type { DecodeStream, Tokenizer } from "./tokenizer.js";

/** One token, and the text that it completes. */
export interface Piece {
  /** May be empty: a token can be part of a character. */
  text: string;
  /** Its id. */
  token: number;
  /** With `logprobs`: the natural logarithm of the token's probability. */
  logprob?: number;
  /**
   * With `logprobs`: the bytes that the token adds to the text. They may be a part of a character; the token that
   * completes it has its text.
   */
  bytes?: Uint8Array;
  /** With a number as `logprobs`: that many of the most likely tokens at its position, most likely first. */
  topLogprobs?: TokenLogprob[];
}

const SPACE = 0x20;

/** The maximum number of tokens of an incomplete character: the bytes of a character, less one. */
const MOST_PARTS = 3;

/** A token that is held back. */
interface Waiting {
  token: number;
  /** The end of its text in the held-back text. */
  end: number;
  /** The text after it that a stop string removed. */
  cut: string;
  /** Whether it ends in an incomplete character. */
  open: boolean;
  logprobs: ChosenLogprobs | undefined;
}

/**
 * Releases each token once, as soon as no later token can change its text or make it part of a stop string. A token is
 * held back while its text may be the beginning of a stop string, or an incomplete character. Without a tokenizer,
 * tokens have no text.
 */
export class TextStream {
  /** Whether a stop string has occurred; text after it must not be released. */
  ended = false;
  readonly #tokenizer: Tokenizer | undefined;
  readonly #stream: DecodeStream | undefined;
  readonly #stops: readonly string[];
  readonly #longestStop: number;
  /** The text of the tokens in `#waiting`. */
  #text = "";
  #waiting: Waiting[] = [];

  constructor(tokenizer: Tokenizer | undefined, prompt: Int32Array, stops: readonly string[]) {
    this.#tokenizer = tokenizer;
    this.#stream = tokenizer?.decodeStream(prompt);
    this.#stops = stops;
    this.#longestStop = Math.max(0, ...stops.map((stop) => stop.length));
  }

  /** Adds a token and returns the tokens that can be released. */
  add(token: number, logprobs?: ChosenLogprobs): Piece[] {
    const before = this.#text.length;
    this.#text += this.#stream?.push(token) ?? "";
    const isOpen = this.#stream?.held() === true;
    this.#waiting.push({ token, end: this.#text.length, cut: "", open: isOpen, logprobs });
    const stop = this.#findStop(Math.max(0, before - this.#longestStop + 1));
    if (stop >= 0) return this.#endAt(stop);
    const certain = this.#text.length - this.#measurePartialStop();
    const uncertain = this.#waiting.findIndex(({ end }) => end > certain);
    let count = uncertain < 0 ? this.#waiting.length : uncertain;
    for (let parts = 0; parts < MOST_PARTS && this.#waiting[count - 1]?.open === true; parts++) count--;
    return this.#release(count);
  }

  /** Releases the held-back tokens at the end; incomplete bytes become replacement characters of the last token. */
  finish(): Piece[] {
    this.#text += this.#stream?.rest() ?? "";
    const last = this.#waiting.at(-1);
    if (last !== undefined) last.end = this.#text.length;
    return this.#release(this.#waiting.length);
  }

  /** Returns the start of the first stop string at `from` or later; −1 for none. */
  #findStop(from: number): number {
    const found = this.#stops.map((stop) => this.#text.indexOf(stop, from)).filter((index) => index >= 0);
    return found.length === 0 ? -1 : Math.min(...found);
  }

  /**
   * Ends the stream and releases the tokens that begin before the stop string at `end`, the last one truncated there.
   */
  #endAt(end: number): Piece[] {
    this.ended = true;
    const whole = this.#text;
    this.#text = whole.slice(0, end);
    let count = 0;
    for (let start = 0; count < this.#waiting.length; count++) {
      const piece = this.#waiting[count] as Waiting;
      if (start >= end && piece.end > end) break;
      start = piece.end;
      piece.cut = whole.slice(end, piece.end);
      piece.end = Math.min(piece.end, end);
    }
    // Parts of the stop string's first character.
    while (this.#waiting[count - 1]?.open === true && this.#measureText(count - 1) === 0) count--;
    return this.#release(count, true);
  }

  /** Returns the length of the text's longest suffix that is the beginning of a stop string. */
  #measurePartialStop(): number {
    let most = 0;
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, this.#text.length); n > most; n--) {
        if (this.#text.endsWith(stop.slice(0, n))) most = n;
      }
    }
    return most;
  }

  /** Returns the length of the text of the held-back token at a place. */
  #measureText(place: number): number {
    return (this.#waiting[place]?.end ?? 0) - (this.#waiting[place - 1]?.end ?? 0);
  }

  /** Releases the first `count` held-back tokens; `stopped` says that a stop string follows them. */
  #release(count: number, stopped = false): Piece[] {
    let start = 0;
    const pieces = this.#waiting.slice(0, count).map((waiting, place): Piece => {
      const { token, end, logprobs } = waiting;
      const text = this.#text.slice(start, end);
      start = end;
      if (logprobs === undefined) return { text, token };
      const bytes = this.#findBytes(waiting, text, stopped && waiting.open && place === count - 1);
      return { text, token, bytes, ...this.#convertLogprobs(logprobs) };
    });
    this.#text = this.#text.slice(start);
    this.#waiting = this.#waiting.slice(count).map((piece) => ({ ...piece, end: piece.end - start }));
    return pieces;
  }

  /**
   * Returns the bytes that a token with this text adds to the answer; `withoutEnd` leaves out the incomplete character
   * at its end.
   */
  #findBytes({ token, cut }: Waiting, text: string, withoutEnd: boolean): Uint8Array {
    const known = this.#tokenizer?.tokenBytes;
    const own = known?.isSpecial(token) === true ? undefined : known?.find(token);
    if (own === undefined) return new TextEncoder().encode(text);
    // Decoding may drop a text's first space.
    const dropped = own[0] === SPACE && own.toString().slice(1) === text + cut ? 1 : 0;
    const end = own.length - (withoutEnd ? measureIncomplete(own) : 0) - Buffer.byteLength(cut);
    return new Uint8Array(own.subarray(dropped, Math.max(dropped, end)));
  }

  /** Converts log-probabilities to the fields of a piece. */
  #convertLogprobs({ logprob, top }: ChosenLogprobs): Pick<Piece, "logprob" | "topLogprobs"> {
    if (top.length === 0) return { logprob };
    return {
      logprob,
      topLogprobs: top.map((alternative) => {
        const bytes = this.#decodeToken(alternative.token);
        return { ...alternative, text: bytes.toString(), bytes: new Uint8Array(bytes) };
      }),
    };
  }

  /**
   * Returns the bytes of a single token; none for ids unknown to the tokenizer, such as padding rows of a vocabulary.
   */
  #decodeToken(token: number): Buffer {
    const known = this.#tokenizer?.tokenBytes;
    if (known !== undefined) return known.find(token) ?? Buffer.alloc(0);
    try {
      return Buffer.from(this.#tokenizer?.decode([token], { skipSpecialTokens: false }) ?? "");
    } catch (error) {
      if (error instanceof LowrankError && error.code === "ERR_INDEX") return Buffer.alloc(0);
      throw error;
    }
  }
}
