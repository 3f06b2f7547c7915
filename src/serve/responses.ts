/** Builds response objects of a generation: complete, or as chunks of a stream. */
import { randomBytes } from "node:crypto";

import type { Piece } from "../models/text-stream.js";
import type { FinishReason, GenerationEvent } from "./batcher.js";
import { formatChatLogprobs, formatCompletionLogprobs } from "./logprobs.js";
import type { GenerationRequest } from "./requests.js";

/** Token counts, without end tokens. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** A text of a request so far. */
interface Text {
  text: string;
  /** Characters so far. */
  length: number;
  pieces: Piece[];
  tokens: number;
  finish: FinishReason | null;
}

/** Collects a request's events and builds its response. */
export class Answer {
  readonly texts: readonly Text[];
  readonly #head: { id: string; created: number; model: string };
  readonly #begunChoices = new Set<number>();

  constructor(
    private readonly request: GenerationRequest,
    private readonly chat: boolean,
  ) {
    const id = `${chat ? "chatcmpl" : "cmpl"}-${randomBytes(16).toString("hex")}`;
    this.#head = { id, created: Math.floor(Date.now() / 1000), model: request.served.name };
    this.texts = request.generation.prompts.map(() => ({
      text: "",
      length: 0,
      pieces: [],
      tokens: 0,
      finish: null,
    }));
  }

  /** Adds an event; returns the chunks to stream for it. */
  add({ index, text, pieces, tokens, finish }: GenerationEvent): object[] {
    const part = this.texts[index] as Text;
    const { stream } = this.request;
    part.tokens = tokens;
    part.finish = finish;
    if (!stream) {
      part.text += text;
      part.pieces.push(...pieces);
    }
    const chunks = stream ? this.#createChunks({ index, text, pieces, finish }, part.length) : [];
    part.length += text.length;
    return chunks;
  }

  get usage(): Usage {
    const completion = this.texts.reduce((sum, { tokens }) => sum + tokens, 0);
    const prompt = this.request.promptTokens;
    return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
  }

  /** Returns the complete response. */
  createResponse(): object {
    const object = this.chat ? "chat.completion" : "text_completion";
    const choices = this.texts.map(({ text, pieces, finish }, index) => ({
      index,
      ...(this.chat ? { message: { role: "assistant", content: text, refusal: null } } : { text }),
      logprobs: this.#formatLogprobs(pieces, 0),
      finish_reason: finish,
    }));
    return { ...this.#head, object, choices, usage: this.usage };
  }

  /** Returns the last chunk of a stream, with token counts, if requested. */
  createUsageChunk(): object | undefined {
    return this.request.includeUsage ? { ...this.#createChunk(), choices: [], usage: this.usage } : undefined;
  }

  #createChunk(): object {
    return { ...this.#head, object: this.chat ? "chat.completion.chunk" : "text_completion" };
  }

  #formatLogprobs(pieces: readonly Piece[], offset: number): object | null {
    if (this.request.generation.options.logprobs === undefined) return null;
    return this.chat ? formatChatLogprobs(pieces) : formatCompletionLogprobs(pieces, offset);
  }

  #createChunks({ index, text, pieces, finish }: Omit<GenerationEvent, "tokens">, offset: number): object[] {
    const logprobs = pieces.length === 0 ? null : this.#formatLogprobs(pieces, offset);
    if (!this.chat) return [this.#createChoice({ index, text, logprobs, finish_reason: finish })];
    const first = this.#begunChoices.has(index) ? [] : [{ role: "assistant", content: "" }];
    this.#begunChoices.add(index);
    const chunk = (delta: object, choiceLogprobs: object | null, reason: FinishReason | null): object =>
      this.#createChoice({ index, delta, logprobs: choiceLogprobs, finish_reason: reason });
    return [
      ...first.map((delta) => chunk(delta, null, null)),
      ...(text === "" && logprobs === null ? [] : [chunk({ content: text }, logprobs, null)]),
      ...(finish === null ? [] : [chunk({}, null, finish)]),
    ];
  }

  #createChoice(choice: object): object {
    return { ...this.#createChunk(), choices: [choice], ...(this.request.includeUsage && { usage: null }) };
  }
}
