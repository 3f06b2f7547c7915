/** Checks the parameters of the two generation endpoints, and builds generations from them. */
import { randomInt } from "node:crypto";

import type { ChatTemplate } from "../chat/template.js";
import { setAdapter, withoutAdapters } from "../lora/adapter/active.js";
import type { CausalLM } from "../models/causal-lm.js";
import { checkGenerateOptions } from "../models/generate-options.js";
import { listEndTokens } from "../models/generate.js";
import type { Tokenizer } from "../models/tokenizer.js";
import { ApiError, createParameterError } from "./api-error.js";
import type { Generation } from "./batcher.js";
import { readConversation, renderConversation } from "./conversation.js";
import { Parameters, createUnsupported, createWrongValue } from "./parameters.js";
import { findServed, type Served } from "./served.js";

/** The default number of tokens of a completion, as in OpenAI's API. */
const COMPLETION_TOKENS = 16;

/** The maximum number of alternatives per token, as in OpenAI's API. */
const MOST_ALTERNATIVES = 20;

/** The model, and the limits of requests. */
export interface Service {
  model: CausalLM;
  served: readonly Served[];
  /** Cached chat templates, by adapter and whether there are tools. */
  templates: Map<string, ChatTemplate>;
  /** The maximum tokens of one text, which requests cannot exceed. */
  maxTokens: number;
  /** The maximum texts of one request. */
  maxTexts: number;
}

/** A checked request, with the data needed to respond. */
export interface GenerationRequest {
  served: Served;
  generation: Generation;
  /** The total tokens of its prompts. */
  promptTokens: number;
  stream: boolean;
  /** Whether a stream ends with token counts. */
  includeUsage: boolean;
  /** The names of given parameters that change nothing here. */
  ignored: readonly string[];
}

/** Parameters that both endpoints share. */
interface Common {
  served: Served;
  n: number;
  stream: boolean;
  includeUsage: boolean;
  /** The seed of text `i`. */
  seed: (i: number) => number;
  options: Generation["options"];
  ignored: string[];
}

/** Reads the body of a chat completion. Throws an `ApiError` that names the invalid parameter. */
export async function parseChatRequest(
  body: Readonly<Record<string, unknown>>,
  service: Service,
): Promise<GenerationRequest> {
  const given = new Parameters(body);
  const served = findServed(given.takeText("model"), service.served);
  const conversation = readConversation(given);
  const effort = given.takeOptionalText("reasoning_effort");
  const kwargs = given.takeObject("chat_template_kwargs") ?? {};
  const limits = [given.takeWhole("max_tokens", 1), given.takeWhole("max_completion_tokens", 1)];
  if (limits.every((limit) => limit !== undefined))
    throw createParameterError(
      "max_tokens",
      "max_tokens and max_completion_tokens are one parameter; give one of them",
    );
  checkPlainAnswer(given);
  const maxTokens = limits[0] ?? limits[1] ?? service.maxTokens;
  const common = readCommon(given, served, { maxTokens, logprobs: readChatLogprobs(given) }, service);
  const template = findTemplate(service, served, conversation.tools !== undefined);
  const readsEffort = template.reads("reasoning_effort");
  if (effort !== undefined && !readsEffort) common.ignored.push("reasoning_effort");
  const variables = { ...(readsEffort && effort !== undefined && { reasoning_effort: effort }), ...kwargs };
  const text = renderConversation(template, conversation, variables);
  const [prompt] = await encodeTexts(service.model, [text], "messages", false);
  return request(
    common,
    service,
    [prompt as Int32Array],
    listEndTokens(service.model, [...conversation.messages]),
  );
}

/** Reads the body of a completion. Throws an `ApiError` that names the invalid parameter. */
export async function parseCompletionRequest(
  body: Readonly<Record<string, unknown>>,
  service: Service,
): Promise<GenerationRequest> {
  const given = new Parameters(body);
  const served = findServed(given.takeText("model"), service.served);
  const prompt = given.require("prompt");
  const maxTokens = given.takeWhole("max_tokens", 1) ?? COMPLETION_TOKENS;
  const logprobs = given.takeWhole("logprobs", 0, MOST_ALTERNATIVES);
  const common = readCommon(given, served, { maxTokens, logprobs }, service);
  const prompts = await readPrompts(prompt, service);
  return request(common, service, prompts, service.model.config.eosTokenIds);
}

/** Takes the shared parameters, and rejects the rest. */
function readCommon(
  given: Parameters,
  served: Served,
  { maxTokens, logprobs }: { maxTokens: number; logprobs: number | undefined },
  service: Service,
): Common {
  const stream = given.takeFlag("stream");
  const first = given.takeNumber("seed", Number.isInteger, "a whole number") ?? randomInt(2 ** 47);
  const n = given.takeWhole("n", 1, service.maxTexts) ?? 1;
  const options = checkGenerateOptions("request", {
    maxNewTokens: Math.min(maxTokens, service.maxTokens),
    temperature: given.takeNumber("temperature", (t) => t >= 0 && t <= 2, "a number from 0 to 2") ?? 1,
    topP: given.takeNumber("top_p", (p) => p > 0 && p <= 1, "a number above 0 and at most 1"),
    topK: given.takeWhole("top_k", 0),
    minP: given.takeNumber("min_p", (p) => p >= 0 && p <= 1, "a number from 0 to 1"),
    repetitionPenalty: given.takeNumber(
      "repetition_penalty",
      (r) => r > 0 && r <= 100,
      "a number above 0 and at most 100",
    ),
    frequencyPenalty: takePenalty(given, "frequency_penalty"),
    presencePenalty: takePenalty(given, "presence_penalty"),
    logitBias: takeBias(given, service.model.lm_head.outFeatures),
    stop: given.takeStops(),
    logprobs,
  });
  const common = { served, n, stream, includeUsage: includesUsage(given, stream), options };
  return { ...common, ignored: given.end(), seed: (i) => toSeed(first, i) };
}

function takePenalty(given: Parameters, name: string): number | undefined {
  return given.takeNumber(name, (p) => p >= -2 && p <= 2, "a number from -2 to 2");
}

/** Takes what is added to logits, by token id below `vocabulary`. */
function takeBias(given: Parameters, vocabulary: number): Record<string, number> {
  const bias = given.takeObject("logit_bias") ?? {};
  for (const [id, value] of Object.entries(bias)) {
    if (!/^(?:0|[1-9]\d*)$/.test(id) || Number(id) >= vocabulary)
      throw createWrongValue("logit_bias", `an object with token ids from 0 to ${vocabulary - 1}`, id);
    if (typeof value !== "number" || !(Math.abs(value) <= 100))
      throw createWrongValue(`logit_bias[${id}]`, "a number from -100 to 100", value);
  }
  return bias as Record<string, number>;
}

/** Returns the seed of text `i`, of at least 0. `first` may be any whole number, as in OpenAI's API. */
function toSeed(first: number, i: number): number {
  const seed = ((first % Number.MAX_SAFE_INTEGER) + i) % Number.MAX_SAFE_INTEGER;
  return seed < 0 ? seed + Number.MAX_SAFE_INTEGER : seed;
}

/**
 * Returns the number of alternatives with log-probabilities per token of a chat; undefined for no log-probabilities.
 */
function readChatLogprobs(given: Parameters): number | undefined {
  const wanted = given.takeFlag("logprobs");
  const alternatives = given.takeWhole("top_logprobs", 0, MOST_ALTERNATIVES);
  if (wanted) return alternatives ?? 0;
  if (alternatives) throw createParameterError("top_logprobs", "top_logprobs needs logprobs: true");
  return undefined;
}

function includesUsage(given: Parameters, stream: boolean): boolean {
  const options = given.takeObject("stream_options");
  if (options === undefined) return false;
  if (!stream) throw createParameterError("stream_options", "stream_options needs stream: true");
  // Obfuscation pads the chunks, and changes no text.
  const { include_usage: usage = false, include_obfuscation: _, ...rest } = options;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw createUnsupported(`stream_options.${unknown.slice(0, 60)}`);
  if (typeof usage !== "boolean")
    throw createWrongValue("stream_options.include_usage", "true or false", usage);
  return usage;
}

/** Rejects requests for anything other than a text. */
function checkPlainAnswer(given: Parameters): void {
  const format = given.takeObject("response_format");
  if (format !== undefined && format["type"] !== "text")
    throw createUnsupported("response_format", [{ type: "text" }]);
  const modalities = given.take("modalities");
  if (modalities !== undefined && JSON.stringify(modalities) !== '["text"]')
    throw createUnsupported("modalities", [["text"]]);
}

/** Returns the chat template of a served model: its adapter's, or else the base model's. Throws `ERR_CHAT_TEMPLATE`. */
function findTemplate({ model, templates }: Service, { adapter }: Served, tools: boolean): ChatTemplate {
  const key = JSON.stringify([adapter, tools]);
  let template = templates.get(key);
  if (template === undefined) {
    const find = (): ChatTemplate => requireTokenizer(model).findChatTemplate(tools);
    if (adapter === null) template = withoutAdapters(model, find);
    else {
      // Generation chooses adapters by row, so activating one affects only the tokenizer's template.
      setAdapter(model, adapter);
      template = find();
    }
    templates.set(key, template);
  }
  return template;
}

/** Returns the prompts of a completion: a text, token ids, or several of either. */
async function readPrompts(value: unknown, { model, maxTexts }: Service): Promise<Int32Array[]> {
  const several = Array.isArray(value) && (value.length === 0 || typeof value[0] !== "number");
  const all: unknown[] = several ? (value as unknown[]) : [value];
  if (all.length === 0 || all.length > maxTexts)
    throw createParameterError(
      "prompt",
      `prompt takes 1 to ${maxTexts} prompts, got ${all.length}`,
      "invalid_value",
    );
  if (all.every((item) => typeof item === "string")) return encodeTexts(model, all, "prompt", true);
  const { numEmbeddings } = model.getInputEmbedding();
  return all.map((ids) => {
    const valid = (id: unknown): boolean =>
      typeof id === "number" && Number.isInteger(id) && id >= 0 && id < numEmbeddings;
    if (!Array.isArray(ids) || ids.length === 0 || !ids.every(valid))
      throw createWrongValue(
        "prompt",
        `a text or token ids from 0 to ${numEmbeddings - 1}, or an array of either`,
        ids,
      );
    return checkLength(Int32Array.from(ids as number[]), ids.length, model, "prompt");
  });
}

/** Encodes texts on background threads, up to the model's limit. */
async function encodeTexts(
  model: CausalLM,
  texts: readonly string[],
  param: string,
  addSpecialTokens: boolean,
): Promise<Int32Array[]> {
  const limit = model.config.maxPositionEmbeddings + 1;
  const rows = await requireTokenizer(model).encodeRows(texts, { addSpecialTokens, limit });
  return rows.map(({ ids, total }) => checkLength(ids.slice(), Math.max(total, ids.length), model, param));
}

/** Throws for a prompt that leaves no room for another token. */
function checkLength(ids: Int32Array, total: number, model: CausalLM, param: string): Int32Array {
  const { bosTokenId, maxPositionEmbeddings: limit } = model.config;
  if (total >= limit) {
    const what = `${param} has ${total} tokens; this model reads at most ${limit - 1} before its answer`;
    throw createParameterError(param, what, "context_length_exceeded");
  }
  if (ids.length > 0) return ids;
  if (bosTokenId === undefined) throw createParameterError(param, `${param} has no tokens`, "invalid_value");
  return Int32Array.of(bosTokenId);
}

function requireTokenizer(model: CausalLM): Tokenizer {
  if (model.tokenizer !== undefined) return model.tokenizer;
  throw new ApiError(500, "this model has no tokenizer");
}

function request(
  { served, n, seed, options, stream, includeUsage, ignored }: Common,
  { maxTexts }: Service,
  prompts: readonly Int32Array[],
  ends: readonly number[],
): GenerationRequest {
  const texts = prompts.flatMap((prompt) => Array.from({ length: n }, () => prompt));
  if (texts.length > maxTexts)
    throw createParameterError(
      "n",
      `a request takes at most ${maxTexts} texts, got ${texts.length}`,
      "invalid_value",
    );
  const seeds = texts.map((_, i) => seed(i));
  const generation = { prompts: texts, seeds, options, adapter: served.adapter, ends };
  const promptTokens = prompts.reduce((sum, { length }) => sum + length, 0);
  return { served, generation, promptTokens, stream, includeUsage, ignored };
}
