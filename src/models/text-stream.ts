/** Tokens with the text that each completes, held back while that is uncertain, up to a stop. */
import { LowrankError } from "../errors.js";
import type { ChosenLogprobs, TokenLogprob } from "./logprobs.js";
import type { DecodeStream, Tokenizer } from "./tokenizer.js";

/** One token, and the text that it completed. */
export interface Piece {
  /** May be empty: a token can be a part of a letter. */
  text: string;
  /** Its id. */
  token: number;
  /** With `logprobs`: natural logarithm of the token's probability. */
  logprob?: number;
  /** With a number of `logprobs`: that many of the likeliest tokens at its position, the likeliest first. */
  topLogprobs?: TokenLogprob[];
}

/** A token whose text may yet change; `end` is where it ends in the text that waits. */
interface Waiting {
  token: number;
  end: number;
  logprobs: ChosenLogprobs | undefined;
}

/**
 * Gives each token once, in order: as soon as no later token can change its text or make it part of a stop. So one
 * whose text may be the beginning of a stop waits, and so does the last one while it may be a part of a letter. Without
 * a tokenizer no token has text.
 */
export class TextStream {
  /** Whether a stop has come. What follows is not to be given. */
  ended = false;
  readonly #tokenizer: Tokenizer | undefined;
  readonly #stream: DecodeStream | undefined;
  readonly #stops: readonly string[];
  readonly #longestStop: number;
  /** Text of the tokens that wait, and where each one's ends in it. */
  #text = "";
  #waiting: Waiting[] = [];

  constructor(tokenizer: Tokenizer | undefined, prompt: Int32Array, stops: readonly string[]) {
    this.#tokenizer = tokenizer;
    this.#stream = tokenizer?.decodeStream(prompt);
    this.#stops = stops;
    this.#longestStop = Math.max(0, ...stops.map((stop) => stop.length));
  }

  /** The tokens that are certain with this one. */
  add(token: number, logprobs?: ChosenLogprobs): Piece[] {
    const before = this.#text.length;
    this.#text += this.#stream?.push(token) ?? "";
    this.#waiting.push({ token, end: this.#text.length, logprobs });
    const stop = this.#stopFrom(Math.max(0, before - this.#longestStop + 1));
    if (stop >= 0) return this.#endAt(stop);
    const certain = this.#text.length - this.#begun();
    const last = this.#stream?.held() === true ? this.#waiting.length - 1 : this.#waiting.length;
    const open = this.#waiting.findIndex(({ end }) => end > certain);
    return this.#release(open < 0 ? last : Math.min(open, last));
  }

  /** What waited, once nothing follows: bytes that are no letter are replacement characters of the last token. */
  finish(): Piece[] {
    this.#text += this.#stream?.rest() ?? "";
    const last = this.#waiting.at(-1);
    if (last !== undefined) last.end = this.#text.length;
    return this.#release(this.#waiting.length);
  }

  /** Where the first stop begins, at `from` or later; −1 for none. */
  #stopFrom(from: number): number {
    const found = this.#stops.map((stop) => this.#text.indexOf(stop, from)).filter((at) => at >= 0);
    return found.length === 0 ? -1 : Math.min(...found);
  }

  /** The tokens that begin before the stop at `at`, the last with its text up to there. */
  #endAt(at: number): Piece[] {
    this.ended = true;
    this.#text = this.#text.slice(0, at);
    let count = 0;
    for (let start = 0; count < this.#waiting.length; count++) {
      const one = this.#waiting[count] as { end: number };
      if (start >= at && one.end > at) break;
      start = one.end;
      one.end = Math.min(one.end, at);
    }
    return this.#release(count);
  }

  /** How much of the end of the text may be the beginning of a stop. */
  #begun(): number {
    let most = 0;
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, this.#text.length); n > most; n--) {
        if (this.#text.endsWith(stop.slice(0, n))) most = n;
      }
    }
    return most;
  }

  /** The first `count` of those that wait. */
  #release(count: number): Piece[] {
    let start = 0;
    const pieces = this.#waiting.slice(0, count).map(({ token, end, logprobs }): Piece => {
      const text = this.#text.slice(start, end);
      start = end;
      return logprobs === undefined ? { text, token } : { text, token, ...this.#scored(logprobs) };
    });
    this.#text = this.#text.slice(start);
    this.#waiting = this.#waiting.slice(count).map((one) => ({ ...one, end: one.end - start }));
    return pieces;
  }

  /** Log-probabilities as pieces have them. */
  #scored({ logprob, top }: ChosenLogprobs): Pick<Piece, "logprob" | "topLogprobs"> {
    if (top.length === 0) return { logprob };
    return { logprob, topLogprobs: top.map((one) => ({ ...one, text: this.#textOf(one.token) })) };
  }

  /** The text of a token alone; none where the tokenizer does not know it, as rows that pad a vocabulary. */
  #textOf(token: number): string {
    try {
      return this.#tokenizer?.decode([token], { skipSpecialTokens: false }) ?? "";
    } catch (error) {
      if (error instanceof LowrankError && error.code === "ERR_INDEX") return "";
      throw error;
    }
  }
}
