/** Generates several texts at once, token by token. */
import { checkList, refuse, checkText, checkWhole } from "../arguments/check.js";
import type { CausalLM } from "./causal-lm.js";
import { checkGenerateOptions, type GenerateOptions } from "./generate-options.js";
import type { DecodedText } from "./decoding.js";
import {
  startDecoding,
  listEndTokens,
  readLogprobs,
  encodePromptIds,
  type Prompt,
  readToken,
} from "./generate.js";
import { TextStream, type Piece } from "./text-stream.js";

/** Options of `generateBatch`. Single values apply to every prompt. */
export interface GenerateBatchOptions extends Omit<GenerateOptions, "seed"> {
  /** The sampling seed: one for all prompts, or an array with one per prompt; 0 by default. */
  seed?: number | readonly number[] | undefined;
  /** The adapter of each prompt, null for the base model; by default the active adapters. */
  adapterPerRow?: readonly (string | null)[] | undefined;
}

/** One entry per prompt. */
export type Pieces = (Piece | null)[];

/** See `CausalLM.generateBatch`. */
export async function* generateBatch(
  model: CausalLM,
  texts: readonly Prompt[],
  given: GenerateBatchOptions | undefined,
): AsyncGenerator<Pieces, void, void> {
  const where = "generateBatch";
  const plain = typeof given === "object" && given !== null && !Array.isArray(given);
  const { seed = 0, adapterPerRow, ...rest } = plain ? given : {};
  const options = checkGenerateOptions(where, plain ? rest : given, ["adapterPerRow"]);
  const prompts = checkList(where, "prompts", texts, (_, name, prompt) =>
    encodePromptIds(where, name, model, prompt as Prompt),
  );
  const seeds = Array.isArray(seed)
    ? checkOneEach("seed", checkList(where, "seed", seed, checkWhole), prompts.length)
    : prompts.map(() => checkWhole(where, "seed", seed));
  const names =
    adapterPerRow === undefined
      ? undefined
      : checkOneEach(
          "adapterPerRow",
          checkList(where, "adapterPerRow", adapterPerRow, checkAdapterName),
          prompts.length,
        );
  const { decoding, texts: decoded } = startDecoding(where, model, prompts, seeds, options, names);
  const ends = texts.map((prompt) => listEndTokens(model, prompt));
  const streams = prompts.map((ids) => new TextStream(model.tokenizer, ids, options.stops));
  const running = new Set(streams.keys());
  try {
    while (running.size > 0) {
      const chosen = new Map((await decoding.next()).map((token) => [token.text, token]));
      for (const token of chosen.values()) readToken(token);
      const released = streams.map((stream, row): Piece[] => {
        if (!running.has(row)) return [];
        const text = decoded[row] as DecodedText;
        const nextToken = chosen.get(text);
        const token = nextToken && readToken(nextToken);
        const over = token === undefined || ends[row]?.includes(token) === true;
        const pieces = over ? stream.finish() : stream.add(token, readLogprobs(nextToken));
        if (over || stream.ended) {
          running.delete(row);
          decoding.end(text);
        }
        return pieces;
      });
      // Pieces of one text released together are yielded separately.
      for (let i = 0; released.some((pieces) => pieces.length > i); i++)
        yield released.map((pieces) => pieces[i] ?? null);
    }
  } finally {
    decoding.dispose();
  }
}

function checkOneEach<T>(name: string, values: T[], prompts: number): T[] {
  if (values.length === prompts) return values;
  return refuse("generateBatch", name, `one value for each of ${prompts} prompts`, values);
}

function checkAdapterName(where: string, name: string, value: unknown): string | null {
  return value === null ? null : checkText(where, name, value);
}
