/** Reads the start tokens and suppressed tokens of transcriptions from `generation_config.json`. */
import type { ConfigFields } from "../config-fields.js";
import type { SpeechTask } from "../speech-to-text.js";

/** The start tokens and suppressed tokens of transcriptions. */
export interface WhisperGeneration {
  /** Whether the model is multilingual; undefined where the file does not say. */
  multilingual: boolean | undefined;
  /** The token of each language, by language code, such as `de`. */
  languages: ReadonlyMap<string, number>;
  /** The token of each task. */
  tasks: Readonly<Partial<Record<SpeechTask, number>>>;
  /** The token that turns timestamps off. */
  noTimestampsTokenId: number | undefined;
  /** Tokens that are never generated. */
  suppressTokens: readonly number[];
  /** Tokens that are never generated first. */
  beginSuppressTokens: readonly number[];
  /** Start tokens after the first, in older files; undefined where the token is to be detected. */
  forcedIds: readonly (number | undefined)[];
  /** The default language, as a code. */
  language: string | undefined;
  /** The default task. */
  task: SpeechTask | undefined;
}

const TASKS = ["transcribe", "translate"] as const;

/** Reads `generation_config.json`, with `config.json` as the fallback. Throws `ERR_FILE_FORMAT`. */
export function readWhisperGeneration(
  config: ConfigFields,
  generation: ConfigFields | undefined,
  vocabSize: number,
): WhisperGeneration {
  const inVocabulary = (fields: ConfigFields, key: string, ids: readonly number[]): readonly number[] => {
    const wrong = ids.find((id) => id >= vocabSize);
    if (wrong === undefined) return ids;
    throw fields.createFailure(`${key} contains ${wrong}, but the model's tokens end at ${vocabSize - 1}`);
  };
  const list = (key: string): readonly number[] => {
    const fields = generation?.has(key) ? generation : config;
    return inVocabulary(fields, key, fields.readTokens(key));
  };
  const readSingle = (fields: ConfigFields, key: string): number | undefined =>
    inVocabulary(fields, key, fields.readTokens(key))[0];
  const table = (key: string): Map<string, number> => {
    const fields = generation?.readObject(key);
    const names = Object.keys(fields?.toObject() ?? {});
    return new Map(
      names.flatMap((name) => {
        const id = readSingle(fields as ConfigFields, name);
        return id === undefined ? [] : [[name, id]];
      }),
    );
  };
  const languages = new Map(
    [...table("lang_to_id")].map(([token, id]) => [token.replace(/^<\|(.*)\|>$/, "$1"), id]),
  );
  const tasks = table("task_to_id");
  const task = generation?.readString("task");
  if (task !== undefined && !(TASKS as readonly string[]).includes(task))
    throw (generation as ConfigFields).createError("task", `must be ${TASKS.join(" or ")}`);
  return {
    multilingual: generation?.readBoolean("is_multilingual"),
    languages,
    tasks: Object.fromEntries(TASKS.flatMap((name) => (tasks.has(name) ? [[name, tasks.get(name)]] : []))),
    noTimestampsTokenId: generation && readSingle(generation, "no_timestamps_token_id"),
    suppressTokens: list("suppress_tokens"),
    beginSuppressTokens: list("begin_suppress_tokens"),
    forcedIds: readForcedIds(
      generation?.readValue("forced_decoder_ids") === undefined ? config : generation,
      vocabSize,
    ),
    language: generation?.readString("language"),
    task: task as SpeechTask | undefined,
  };
}

/** Reads ids by position, from 1 without a gap. */
function readForcedIds(fields: ConfigFields, vocabSize: number): (number | undefined)[] {
  const key = "forced_decoder_ids";
  const value = fields.readValue(key);
  if (value === undefined) return [];
  const fits =
    Array.isArray(value) &&
    value.every((pair: unknown, i) => {
      if (!Array.isArray(pair) || pair.length !== 2 || pair[0] !== i + 1) return false;
      const id: unknown = pair[1];
      return id === null || (Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize);
    });
  if (!fits)
    throw fields.createError(
      key,
      "must be a list of consecutive positions from 1, each with a token id or null",
    );
  return (value as [number, number | null][]).map(([, id]) => id ?? undefined);
}
