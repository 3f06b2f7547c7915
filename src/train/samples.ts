/** What a dashboard shows of texts: rows as they are trained on, and what the model writes before and after. */
import { isTrained, partsOf } from "../data/parts.js";
import type { Example, Examples } from "../data/store.js";
import { withoutAdapters } from "../lora/index.js";
import { CausalLM } from "../models/causal-lm.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { Tokenizer } from "../models/tokenizer.js";
import { withRandom } from "../random.js";
import type { RowsEvent, SampleEvent } from "./events.js";
import type { Prepared } from "./prepare.js";
import type { Settings } from "./settings.js";
import type { RecordedContext } from "./watched.js";

/** Rows that are shown, and tokens of each. */
const ROWS = 3;
const ROW_TOKENS = 512;
/** Prompts, their tokens at most, those of a row that is trained on as a whole, and tokens that follow. */
const PROMPTS = 3;
const PROMPT_TOKENS = 256;
const BEGINNING = 16;
const NEW_TOKENS = 48;

/** The first rows of the data as they are trained on. */
export function rowsEvent(tokenizer: Tokenizer | undefined, train: Examples): RowsEvent {
  const decode = (ids: Int32Array): string => tokenizer?.decode(ids, { skipSpecialTokens: false }) ?? "";
  return { type: "rows", rows: firstOf(train, ROWS).map((row) => partsOf(row, decode, ROW_TOKENS)) };
}

function firstOf(examples: Examples, count: number): Example[] {
  return Array.from({ length: Math.min(count, examples.length) }, (_, row) => examples.at(row) as Example);
}

/**
 * What tells of texts after `step` steps, where somebody may be looking; it does nothing for a model that writes none.
 * What goes wrong with it is a warning, and no end of the run.
 */
export function sampling(
  {
    model,
    prepared,
    settings: { signal },
  }: { model: PretrainedModel; prepared: Prepared; settings: Pick<Settings, "signal"> },
  { emit, stopping, watched }: RecordedContext,
): (step: number) => Promise<void> {
  const ending = signal === undefined ? stopping : AbortSignal.any([signal, stopping]);
  let samples: Samples | undefined;
  let failed = !(model instanceof CausalLM);
  return async (step) => {
    if (failed || !watched.on) return;
    try {
      samples ??= new Samples(model as CausalLM, prepared);
      const event = await samples.at(step, ending);
      if (event.texts.length > 0) emit(event);
    } catch (error) {
      if (ending.aborted) return;
      failed = true;
      const what = "no more samples are written for the dashboard";
      emit({ type: "warning", message: `step ${step}: ${what}: ${(error as Error).message}` });
    }
  };
}

/** Texts that a language model goes on with, greedily, so that nothing is drawn. */
class Samples {
  readonly #model: CausalLM;
  readonly #prompts: Int32Array[];
  /** What the model alone makes of them, which stays the same. */
  #base: string[] | undefined;

  constructor(model: CausalLM, { train, held }: Prepared) {
    this.#model = model;
    const limit = Math.min(PROMPT_TOKENS, model.config.maxPositionEmbeddings - 1);
    this.#prompts = firstOf(held.length > 0 ? held : train, PROMPTS)
      .map((row) => promptOf(row).subarray(0, limit))
      .filter(({ length }) => length > 0);
  }

  /** Rejects with the signal's reason, and with what `generate` throws. */
  async at(step: number, signal: AbortSignal): Promise<SampleEvent> {
    const model = this.#model;
    const written = async (): Promise<string[]> => {
      const texts: string[] = [];
      for (const prompt of this.#prompts) texts.push(await textAfter(model, prompt, signal));
      return texts;
    };
    // The run's own random numbers are none of its business.
    return withRandom(0, async () => {
      this.#base ??= await withoutAdapters(model, written);
      const [base, tuned] = [this.#base, await written()];
      const texts = this.#prompts.map((ids, i) => {
        const prompt = model.tokenizer?.decode(ids, { skipSpecialTokens: false }) ?? "";
        return { prompt, base: base[i] as string, tuned: tuned[i] as string };
      });
      return { type: "sample", step, texts };
    });
  }
}

async function textAfter(model: CausalLM, prompt: Int32Array, signal: AbortSignal): Promise<string> {
  let text = "";
  for await (const piece of model.generate(prompt, { maxNewTokens: NEW_TOKENS, signal })) text += piece.text;
  return text;
}

/** A row up to what is trained on; of one that is trained on from its beginning that. */
function promptOf(row: Example): Int32Array {
  const { ids } = row;
  let first = 0;
  while (first < ids.length && !isTrained(row, first)) first++;
  return first > 1 ? ids.subarray(0, first) : ids.subarray(0, Math.min(BEGINNING, Math.ceil(ids.length / 2)));
}
