/** Generates text token by token. */
import { refuse } from "../arguments/check.js";
import { optionName } from "../arguments/option-name.js";
import type { Message } from "../chat/messages.js";
import { LowrankError } from "../errors.js";
import type { CausalLM } from "./causal-lm.js";
import { readSpecialTokens } from "./chat-template-files.js";
import { type NextToken, type DecodedText, Decoding } from "./decoding.js";
import { type CheckedOptions, checkGenerateOptions, type GenerateOptions } from "./generate-options.js";
import type { ChosenLogprobs } from "./logprobs.js";
import { TextStream, type Piece } from "./text-stream.js";

export type { Message } from "../chat/messages.js";
export type { Piece } from "./text-stream.js";

/** A prompt: a text, token ids, or the messages of a conversation. */
export type Prompt = string | Int32Array | readonly Message[];

/** See `CausalLM.generate`. */
export async function* generate(
  model: CausalLM,
  prompt: Prompt,
  given: GenerateOptions | undefined,
): AsyncGenerator<Piece, void, void> {
  const options = checkGenerateOptions("generate", given);
  const ids = encodePromptIds("generate", "the prompt", model, prompt);
  const { decoding } = startDecoding("generate", model, [ids], [options.seed], options);
  const ends = listEndTokens(model, prompt);
  const text = new TextStream(model.tokenizer, ids, options.stops);
  try {
    for (;;) {
      const [chosen] = await decoding.next();
      if (chosen === undefined) break;
      const token = readToken(chosen);
      if (ends.includes(token)) break;
      yield* text.add(token, readLogprobs(chosen));
      if (text.ended) return;
    }
    yield* text.finish();
  } finally {
    decoding.dispose();
  }
}

/** @internal Starts decoding `prompts`, each limited by the options and the model's longest text. */
export function startDecoding(
  where: string,
  model: CausalLM,
  prompts: readonly Int32Array[],
  seeds: readonly number[],
  options: CheckedOptions,
  adapterPerRow?: readonly (string | null)[],
): { decoding: Decoding; texts: readonly DecodedText[] } {
  const decoding = new Decoding(model, options.signal);
  const texts = createDecodedTexts(where, model, prompts, seeds, options, adapterPerRow);
  decoding.admit(texts);
  return { decoding, texts };
}

/** @internal Returns prompts as texts to decode, each limited by the options and the model's longest text. */
export function createDecodedTexts(
  where: string,
  model: CausalLM,
  prompts: readonly Int32Array[],
  seeds: readonly number[],
  options: CheckedOptions,
  adapterPerRow?: readonly (string | null)[],
): DecodedText[] {
  const limit = model.config.maxPositionEmbeddings;
  const vocabulary = model.lm_head.outFeatures;
  for (const token of options.logitBias.keys())
    if (token >= vocabulary)
      throw new LowrankError(
        "ERR_OPTION",
        `${where}: ${optionName("logitBias")} has the token ${token}; this model's tokens are 0 to ${vocabulary - 1}`,
      );
  return prompts.map((prompt, row) => ({
    where,
    prompt,
    options,
    seed: seeds[row] as number,
    count: Math.min(options.maxNewTokens, limit - prompt.length),
    adapter: adapterPerRow?.[row],
  }));
}

/** @internal Returns the token of a text; throws the error that ended it. */
export function readToken(chosen: NextToken): number {
  if ("failure" in chosen) throw chosen.failure;
  return chosen.token;
}

/** @internal Returns the log-probabilities of a text's token, where they were requested. */
export function readLogprobs(chosen: NextToken | undefined): ChosenLogprobs | undefined {
  return chosen !== undefined && "token" in chosen ? chosen.logprobs : undefined;
}

/** @internal Encodes and checks a prompt; `name` is its name in errors. */
export function encodePromptIds(where: string, name: string, model: CausalLM, prompt: Prompt): Int32Array {
  const ids = encodePrompt(where, name, model, prompt);
  const { bosTokenId, maxPositionEmbeddings: limit } = model.config;
  if (ids.length === 0) {
    if (bosTokenId === undefined) throw new LowrankError("ERR_OPTION", `${where}: ${name} has no tokens`);
    return Int32Array.of(bosTokenId);
  }
  if (ids.length >= limit) {
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: ${name} has ${ids.length} tokens; this model takes fewer than ${limit}`,
    );
  }
  return ids;
}

/** @internal Returns the ids that end a generation: the model's, and for messages also the tokenizer's end token. */
export function listEndTokens(model: CausalLM, prompt: Prompt): readonly number[] {
  const { eosTokenIds } = model.config;
  const { tokenizer } = model;
  if (!Array.isArray(prompt) || tokenizer === undefined) return eosTokenIds;
  const end = readSpecialTokens(tokenizer.companions)["eos_token"];
  const id = end === undefined ? undefined : tokenizer.tokenToId(end);
  return id === undefined ? eosTokenIds : [...eosTokenIds, id];
}

function encodePrompt(where: string, name: string, model: CausalLM, prompt: unknown): Int32Array {
  if (prompt instanceof Int32Array) return prompt;
  if (typeof prompt === "string") return requireTokenizer(where, model).encode(prompt);
  if (!Array.isArray(prompt))
    return refuse(where, name, "a string, an Int32Array of token ids or an array of messages", prompt);
  return requireTokenizer(where, model).applyChatTemplate(prompt as Message[], { addGenerationPrompt: true });
}

function requireTokenizer(where: string, model: CausalLM): NonNullable<CausalLM["tokenizer"]> {
  if (model.tokenizer !== undefined) return model.tokenizer;
  throw new LowrankError(
    "ERR_OPTION",
    `${where}: this model has no tokenizer; give token ids as an Int32Array`,
  );
}
