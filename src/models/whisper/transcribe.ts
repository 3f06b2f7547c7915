/** Speech to text: greedy decoding, window by window, with a KV cache. */
import { checkChoice, checkKnownOptions, refuse, checkText, checkWhole } from "../../arguments/check.js";
import { tensor } from "../../tensor/create.js";
import { LowrankError, throwIfAborted } from "../../errors.js";
import { runEvaluating, keep, noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { checkGenerateOptions } from "../generate-options.js";
import { Sampler, type Choice } from "../sampler.js";
import type { SpeechTask, TranscribeOptions, Transcription } from "../speech-to-text.js";
import type { SpeechCache } from "./decoder.js";
import { checkSamples } from "./features.js";
import type { WhisperGeneration } from "./generation.js";
import { resolveLanguage, suggestLanguage } from "./languages.js";
import { optionName } from "../../arguments/option-name.js";
import type { WhisperForConditionalGeneration } from "./model.js";

const OPTIONS = ["language", "task", "maxNewTokens", "signal"] as const satisfies (keyof TranscribeOptions)[];

/** The start tokens after the first. */
export interface Beginning {
  /** The language token; undefined for none, `find` for detection by the model. */
  language: number | "find" | undefined;
  rest: number[];
}

/**
 * Returns the start tokens of texts in `language` for `task`. Throws `ERR_UNSUPPORTED_MODEL` where the model does not
 * name them; `ERR_OPTION` for a language or task that it lacks.
 */
export function buildBeginning(
  where: string,
  generation: WhisperGeneration,
  { language, task }: { language?: string | undefined; task?: SpeechTask | undefined },
): Beginning {
  const { multilingual, languages, tasks, noTimestampsTokenId: noTimes } = generation;
  const refused = (what: string): never => {
    throw new LowrankError("ERR_OPTION", `${where}: ${what}`);
  };
  if (noTimes === undefined) {
    const what =
      "the model has no generation_config.json with no_timestamps_token_id, a start token of its texts";
    throw new LowrankError("ERR_UNSUPPORTED_MODEL", `${where}: ${what}`);
  }
  const forced = generation.forcedIds.filter((id) => id !== noTimes);
  const requested = language ?? task;
  if (multilingual === false) {
    if (requested !== undefined)
      refused(`the model is English-only; leave ${language === undefined ? "task" : "language"} out`);
    return { language: undefined, rest: [...forced.filter((id) => id !== undefined), noTimes] };
  }
  const findId = (name: string): number => {
    const id = languages.get(resolveLanguage(name));
    if (id !== undefined) return id;
    if (languages.size === 0)
      return refused("the model's generation_config.json names no languages (lang_to_id)");
    const near = suggestLanguage(name, [...languages.keys()]);
    return refused(
      `${optionName("language")} must be one of ${[...languages.keys()].join(", ")}, got "${name}"${near}`,
    );
  };
  const name = language ?? generation.language;
  const spoken = name === undefined ? (forced[0] ?? (languages.size > 0 ? "find" : undefined)) : findId(name);
  const wanted = task ?? generation.task;
  if (wanted !== undefined && tasks[wanted] === undefined)
    refused(`the model's generation_config.json has no token of the task ${wanted} (task_to_id)`);
  const own =
    wanted === undefined ? ((name === undefined ? forced[1] : undefined) ?? tasks.transcribe) : tasks[wanted];
  return { language: spoken, rest: own === undefined ? [noTimes] : [own, noTimes] };
}

/** See `WhisperForConditionalGeneration.transcribe`. */
export async function transcribe(
  model: WhisperForConditionalGeneration,
  samples: Float32Array,
  given: TranscribeOptions,
): Promise<Transcription> {
  const where = "transcribe";
  const { language, task, maxNewTokens, signal } = checkKnownOptions(where, given, OPTIONS);
  if (language !== undefined) checkText(where, "language", language);
  if (task !== undefined) checkChoice(where, "task", task, ["transcribe", "translate"]);
  if (maxNewTokens !== undefined) checkWhole(where, "maxNewTokens", maxNewTokens, 1);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    refuse(where, "signal", "an AbortSignal", signal);
  checkSamples(where, "samples", samples);
  const beginning = buildBeginning(where, model.config.generation, { language, task });
  const { tokenizer } = model;
  if (tokenizer === undefined) {
    const folder = model.folder ?? "the model";
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${where}: ${folder} has no tokenizer.json`);
  }
  const writer = new Writer(model, maxNewTokens, signal);
  try {
    const tokens: number[] = [];
    const texts: string[] = [];
    const window = model.windowSamples;
    for (let start = 0; start < samples.length; start += window) {
      throwIfAborted(signal);
      const transcribed = await writer.write(samples.subarray(start, start + window), beginning);
      // The language detected in the first window applies to the others.
      beginning.language = transcribed.language;
      tokens.push(...transcribed.tokens);
      texts.push(tokenizer.decode(transcribed.tokens));
    }
    return { text: texts.join("").trim(), tokens, language: findLanguageCode(model, beginning.language) };
  } finally {
    writer.dispose();
  }
}

function findLanguageCode(
  model: WhisperForConditionalGeneration,
  id: Beginning["language"],
): string | undefined {
  return [...model.config.generation.languages].find(([, token]) => token === id)?.[0];
}

/** A recorded step, with its pending tokens. */
interface Step {
  choice: Choice;
  tokens: Promise<Int32Array>;
}

/** Transcribes windows one by one. */
class Writer {
  readonly #sampler: Sampler;
  /** Biases of the logits, −∞ for suppressed tokens: for the first token, and for later ones. */
  readonly #first: Tensor;
  readonly #later: Tensor;
  /** The same, with all tokens except languages suppressed. */
  readonly #languages: Tensor;

  constructor(
    private readonly model: WhisperForConditionalGeneration,
    private readonly most: number | undefined,
    private readonly signal: AbortSignal | undefined,
  ) {
    const { generation, vocabSize: vocabulary } = model.config;
    const { device } = model;
    const createBias = (...lists: (readonly number[])[]): Tensor => {
      const bias = new Float32Array(vocabulary);
      for (const id of lists.flat()) bias[id] = -Infinity;
      const created = tensor(bias, { shape: [1, vocabulary], device });
      keep(created);
      return created;
    };
    const { suppressTokens, beginSuppressTokens } = generation;
    const languages = new Set(generation.languages.values());
    this.#first = createBias(suppressTokens, beginSuppressTokens);
    this.#later = createBias(suppressTokens);
    this.#languages = createBias(
      Array.from({ length: vocabulary }, (_, id) => id).filter((id) => !languages.has(id)),
    );
    const greedy = checkGenerateOptions("transcribe", {});
    const text = { where: "transcribe", prompt: new Int32Array(), seed: 0, options: greedy };
    this.#sampler = Sampler.create([text], vocabulary, device);
  }

  dispose(): void {
    for (const owned of [this.#first, this.#later, this.#languages]) owned.dispose();
    this.#sampler.dispose();
  }

  /** Transcribes `speech`; returns the tokens, without start and end tokens, and the language token. */
  async write(
    speech: Float32Array,
    { language, rest }: Beginning,
  ): Promise<{ tokens: number[]; language: number | undefined }> {
    const { decoderStartTokenId: start, eosTokenIds, maxPositionEmbeddings } = this.model.config;
    const cache = this.#runQuietly(() => {
      const { encoder, decoder } = this.model.model;
      return decoder.createCache(encoder.forward(this.model.features(speech)));
    });
    try {
      const found = language === "find" ? await this.#find(cache, start) : language;
      const prefix = language === "find" ? [] : [start];
      if (found !== undefined) prefix.push(found);
      prefix.push(...rest);
      const room = maxPositionEmbeddings - cache.text.length - prefix.length;
      const most = Math.min(this.most ?? room, room);
      const tokens: number[] = [];
      let step = most > 0 ? this.#recordStep(cache, () => this.#createIds(prefix), this.#first) : undefined;
      while (step !== undefined) {
        const { choice } = step;
        // Step t + 1 is recorded while step t is computed.
        const continues = tokens.length + 1 < most;
        const following: Step | undefined = continues
          ? this.#recordStep(cache, () => choice.token, this.#later)
          : undefined;
        try {
          const [token] = await step.tokens;
          throwIfAborted(this.signal);
          if (eosTokenIds.includes(token as number)) {
            following?.choice.dispose();
            break;
          }
          tokens.push(token as number);
        } catch (error) {
          following?.choice.dispose();
          throw error;
        } finally {
          choice.dispose();
        }
        step = following;
      }
      return { tokens, language: found };
    } finally {
      cache.dispose();
    }
  }

  /** Detects the language from the logits after the first token, which is then in the cache. */
  async #find(cache: SpeechCache, start: number): Promise<number> {
    const { choice, tokens } = this.#recordStep(cache, () => this.#createIds([start]), this.#languages);
    try {
      return (await tokens)[0] as number;
    } finally {
      choice.dispose();
    }
  }

  #createIds(ids: readonly number[]): Tensor {
    return tensor(Int32Array.from(ids), { shape: [1, ids.length], device: this.model.device });
  }

  /** Records the decoder over `ids`, and the choice of the next token. */
  #recordStep(cache: SpeechCache, ids: () => Tensor, bias: Tensor): Step {
    const choice = this.#runQuietly(() => {
      const hidden = this.model.model.decoder.forward(ids(), cache);
      const last = hidden.slice(1, (hidden.shape[1] as number) - 1);
      const logits = this.model.head.forward(last).reshape(1, -1);
      return this.#sampler.choose(logits.add(bias), [0]);
    });
    const tokens = this.#readTokens(choice);
    // Reads of a step that is discarded must not become unhandled rejections.
    tokens.catch(() => undefined);
    return { choice, tokens };
  }

  /** Throws `ERR_NOT_FINITE`. */
  async #readTokens(choice: Choice): Promise<Int32Array> {
    const { tokens, bad } = await choice.read();
    const [place = -1] = bad;
    if (place >= 0) throw this.#sampler.createNotFiniteError(0, place);
    return tokens;
  }

  #runQuietly<T>(run: () => T): T {
    return runEvaluating(() => noGrad(() => scope(run)));
  }
}
