/** The objects that answer a generation: whole, or as chunks of a stream. */
import { randomBytes } from "node:crypto";

import type { FinishReason, GenerationEvent } from "./batcher.js";
import type { GenerationRequest } from "./requests.js";

/** Numbers of tokens, the end tokens not counted. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** A text of a request, as far as it has come. */
interface Text {
  text: string;
  tokens: number;
  finish: FinishReason | null;
}

/** Collects a request's events, and makes its answer of them. */
export class Answer {
  readonly texts: readonly Text[];
  readonly #head: { id: string; created: number; model: string };
  readonly #begun = new Set<number>();

  constructor(
    private readonly request: GenerationRequest,
    private readonly chat: boolean,
  ) {
    const id = `${chat ? "chatcmpl" : "cmpl"}-${randomBytes(16).toString("hex")}`;
    this.#head = { id, created: Math.floor(Date.now() / 1000), model: request.served.name };
    this.texts = request.generation.prompts.map(() => ({ text: "", tokens: 0, finish: null }));
  }

  /** Adds an event; gives the chunks that a stream has of it. */
  add({ index, text, tokens, finish }: GenerationEvent): object[] {
    const own = this.texts[index] as Text;
    const { stream } = this.request;
    own.tokens = tokens;
    own.finish = finish;
    if (!stream) own.text += text;
    return stream ? this.#chunks(index, text, finish) : [];
  }

  get usage(): Usage {
    const completion = this.texts.reduce((sum, { tokens }) => sum + tokens, 0);
    const prompt = this.request.promptTokens;
    return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
  }

  /** The answer as one object. */
  whole(): object {
    const object = this.chat ? "chat.completion" : "text_completion";
    const choices = this.texts.map(({ text, finish }, index) => ({
      index,
      ...(this.chat ? { message: { role: "assistant", content: text, refusal: null } } : { text }),
      logprobs: null,
      finish_reason: finish,
    }));
    return { ...this.#head, object, choices, usage: this.usage };
  }

  /** The last chunk, of a stream that was asked for it. */
  usageChunk(): object | undefined {
    return this.request.includeUsage ? { ...this.#chunk(), choices: [], usage: this.usage } : undefined;
  }

  #chunk(): object {
    return { ...this.#head, object: this.chat ? "chat.completion.chunk" : "text_completion" };
  }

  #chunks(index: number, text: string, finish: FinishReason | null): object[] {
    const rest = { logprobs: null, finish_reason: finish };
    if (!this.chat) return [this.#choice({ index, text, ...rest })];
    const first = this.#begun.has(index) ? [] : [{ role: "assistant", content: "" }];
    this.#begun.add(index);
    const deltas = [...first, ...(text === "" ? [] : [{ content: text }])];
    return [
      ...deltas.map((delta) => this.#choice({ index, delta, logprobs: null, finish_reason: null })),
      ...(finish === null ? [] : [this.#choice({ index, delta: {}, ...rest })]),
    ];
  }

  #choice(choice: object): object {
    return { ...this.#chunk(), choices: [choice], ...(this.request.includeUsage && { usage: null }) };
  }
}
