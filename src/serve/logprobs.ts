/** Log-probabilities of tokens, in the formats of both endpoints. */
import type { TokenLogprob } from "../models/logprobs.js";
import type { Piece } from "../models/text-stream.js";

/** Replaces −∞, which JSON lacks, as in OpenAI's API. */
const LOWEST = -9999;

interface Token {
  token: string;
  logprob: number;
  bytes: number[];
}

function formatToken({
  text,
  logprob = 0,
  bytes = new Uint8Array(),
}: Pick<Piece, "text" | "logprob" | "bytes">): Token {
  return { token: text, logprob: Math.max(logprob, LOWEST), bytes: [...bytes] };
}

/** Returns `choices[].logprobs` of a chat completion. */
export function formatChatLogprobs(pieces: readonly Piece[]): object {
  const content = pieces.map((piece) => ({
    ...formatToken(piece),
    top_logprobs: (piece.topLogprobs ?? []).map(formatToken),
  }));
  return { content, refusal: null };
}

/** Returns `choices[].logprobs` of a completion; `offset` is the number of characters before the pieces. */
export function formatCompletionLogprobs(pieces: readonly Piece[], offset: number): object {
  let position = offset;
  const offsets = pieces.map(({ text }) => {
    const start = position;
    position += text.length;
    return start;
  });
  return {
    tokens: pieces.map(({ text }) => text),
    token_logprobs: pieces.map(({ logprob = 0 }) => Math.max(logprob, LOWEST)),
    top_logprobs: pieces.map(({ topLogprobs = [] }) =>
      Object.fromEntries(
        topLogprobs.map((alternative) => [nameToken(alternative), Math.max(alternative.logprob, LOWEST)]),
      ),
    ),
    text_offset: offsets,
  };
}

/** Returns a different name for each token, as OpenAI's API does: parts of characters are written as `bytes:\xe6`. */
function nameToken({ text, bytes }: TokenLogprob): string {
  if (Buffer.from(text).equals(bytes)) return text;
  return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}
