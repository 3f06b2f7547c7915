/** Text, token by token, over a cache of keys and values. */
import { LowrankError } from "../errors.js";
import type { CausalLM } from "./causal-lm.js";
import { tokensAfter } from "./decoding.js";
import { Sampler } from "./sampler.js";

/** Text, or token ids as they are. */
export type Prompt = string | Int32Array;

export interface GenerateOptions {
  /** Tokens after the prompt; 256 unless given, and never past the model's longest text. */
  maxNewTokens?: number;
  /** 0 takes the likeliest token each time. */
  temperature?: number;
  /** Keep the fewest tokens whose probabilities reach this sum. */
  topP?: number;
  /** Keep the likeliest k. */
  topK?: number;
  seed?: number;
  /** Ends where one of these texts comes; it is not yielded. */
  stop?: string | readonly string[];
  signal?: AbortSignal;
}

/** One token, and the text that it completed (which may be empty: a token can be part of a letter). */
export interface Piece {
  text: string;
  token: number;
}

export async function* generate(
  model: CausalLM,
  prompt: Prompt,
  options: GenerateOptions,
): AsyncGenerator<Piece, void, void> {
  const { maxNewTokens = 256 } = options;
  const sampler = new Sampler(options);
  const ids = promptIds(model, prompt);
  const limit = model.config.maxPositionEmbeddings;
  if (ids.length >= limit) {
    throw new LowrankError(
      "ERR_OPTION",
      `generate: the prompt has ${ids.length} tokens; this model takes fewer than ${limit}`,
    );
  }
  const capacity = Math.min(ids.length + maxNewTokens, limit);
  const training = model.training;
  model.eval();
  const text = new TextStream(model, ids, options.stop);
  try {
    for await (const token of tokensAfter(model, ids, capacity - ids.length, sampler, options.signal)) {
      if (model.config.eosTokenIds.includes(token)) break;
      const piece = text.add(token);
      if (piece.text !== "" || !piece.ended) yield { text: piece.text, token };
      if (piece.ended) return;
    }
    const rest = text.rest();
    if (rest !== "") yield { text: rest, token: text.last };
  } finally {
    model.train(training);
  }
}

function promptIds(model: CausalLM, prompt: Prompt): Int32Array {
  const ids = typeof prompt === "string" ? tokenizerOf(model).encode(prompt) : prompt;
  if (ids.length > 0) return ids;
  const { bosTokenId } = model.config;
  if (bosTokenId === undefined) throw new LowrankError("ERR_OPTION", "generate: the prompt has no tokens");
  return Int32Array.of(bosTokenId);
}

function tokenizerOf(model: CausalLM): NonNullable<CausalLM["tokenizer"]> {
  if (model.tokenizer === undefined) {
    throw new LowrankError(
      "ERR_OPTION",
      "generate: this model has no tokenizer; give token ids as an Int32Array",
    );
  }
  return model.tokenizer;
}

/** Turns tokens into text as soon as it is certain, and watches for stops. */
class TextStream {
  readonly #tokens: number[] = [];
  readonly #stops: readonly string[];
  #given = 0;
  #all = "";

  constructor(
    private readonly model: CausalLM,
    private readonly prompt: Int32Array,
    stop: string | readonly string[] | undefined,
  ) {
    this.#stops = stop === undefined ? [] : typeof stop === "string" ? [stop] : stop;
  }

  get last(): number {
    return this.#tokens.at(-1) ?? -1;
  }

  add(token: number): { text: string; ended: boolean } {
    this.#tokens.push(token);
    const { tokenizer } = this.model;
    if (tokenizer === undefined) return { text: "", ended: false };
    // A tokenizer may drop a space at a text's start, so the last token of the prompt stands before.
    const before = this.prompt.subarray(-1);
    const lead = tokenizer.decode(before);
    this.#all = tokenizer.decode([...before, ...this.#tokens]).slice(lead.length);
    for (const stop of this.#stops) {
      const at = this.#all.indexOf(stop);
      if (at >= 0) {
        const text = this.#all.slice(this.#given, at);
        this.#given = at;
        this.#all = this.#all.slice(0, at);
        return { text, ended: true };
      }
    }
    return { text: this.#take(this.#certain()), ended: false };
  }

  /** What was held back and is text after all. */
  rest(): string {
    return this.#take(this.#all.length);
  }

  /** How far no later token can change the text or make it part of a stop. */
  #certain(): number {
    if (this.#all.endsWith("\ufffd")) return this.#given;
    let certain = this.#all.length;
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, this.#all.length); n > 0; n--) {
        if (this.#all.endsWith(stop.slice(0, n))) {
          certain = Math.min(certain, this.#all.length - n);
          break;
        }
      }
    }
    return certain;
  }

  #take(end: number): string {
    const text = this.#all.slice(this.#given, Math.max(end, this.#given));
    this.#given = Math.max(end, this.#given);
    return text;
  }
}
