/** Text, token by token, over a cache of keys and values. */
import { refuse } from "../argument.js";
import { LowrankError } from "../errors.js";
import type { CausalLM } from "./causal-lm.js";
import { tokensAfter } from "./decoding.js";
import { checkedGenerateOptions, type GenerateOptions } from "./generate-options.js";
import { Sampler } from "./sampler.js";

/** Text, or token ids as they are. */
export type Prompt = string | Int32Array;

/** One token, and the text that it completed (which may be empty: a token can be part of a letter). */
export interface Piece {
  text: string;
  token: number;
}

export async function* generate(
  model: CausalLM,
  prompt: Prompt,
  given: GenerateOptions | undefined,
): AsyncGenerator<Piece, void, void> {
  const options = checkedGenerateOptions("generate", given);
  const ids = promptIds(model, prompt);
  const limit = model.config.maxPositionEmbeddings;
  if (ids.length >= limit) {
    throw new LowrankError(
      "ERR_OPTION",
      `generate: the prompt has ${ids.length} tokens; this model takes fewer than ${limit}`,
    );
  }
  const count = Math.min(options.maxNewTokens, limit - ids.length);
  const sampler = new Sampler(options);
  const text = new TextStream(model, ids, options.stops);
  for await (const token of tokensAfter(model, ids, count, sampler, options.signal)) {
    if (model.config.eosTokenIds.includes(token)) break;
    const piece = text.add(token);
    if (piece.text !== "" || !piece.ended) yield { text: piece.text, token };
    if (piece.ended) return;
  }
  const rest = text.rest();
  if (rest !== "") yield { text: rest, token: text.last };
}

function promptIds(model: CausalLM, prompt: Prompt): Int32Array {
  if (Array.isArray(prompt)) {
    throw new LowrankError(
      "ERR_CHAT_TEMPLATE",
      "generate: chat templates are not supported yet; give the text that the model's template makes of the messages",
    );
  }
  if (typeof prompt !== "string" && !(prompt instanceof Int32Array))
    refuse("generate", "the prompt", "a text or an Int32Array of token ids", prompt);
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
    stops: readonly string[],
  ) {
    this.#stops = stops;
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
