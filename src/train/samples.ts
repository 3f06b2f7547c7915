/** Texts for the dashboard: training rows, and the model's continuations before and after training. */
import { isTrained, splitByTraining } from "../data/parts.js";
import type { Example, Examples } from "../data/store.js";
import { withoutAdapters } from "../lora/index.js";
import { CausalLM } from "../models/causal-lm.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { Tokenizer } from "../models/tokenizer.js";
import { runWithRandom } from "../tensor/random.js";
import type { RowsEvent, SampleEvent } from "./events.js";
import { type Prepared, SHOWN_ROWS } from "./prepare.js";
import type { Settings } from "./settings.js";
import type { RecordedContext } from "./watched.js";

/** The maximum tokens of a row that is shown. */
const ROW_TOKENS = 512;
/** The tokens of a prompt, its tokens if the whole row is trained, and the generated tokens. */
const PROMPT_TOKENS = 256;
const BEGINNING = 16;
const NEW_TOKENS = 48;

/** Returns the event with the first rows of the training data. */
export function createRowsEvent(tokenizer: Tokenizer | undefined, train: Examples): RowsEvent {
  const decode = (ids: Int32Array): string => tokenizer?.decode(ids, { skipSpecialTokens: false }) ?? "";
  return {
    type: "rows",
    rows: takeFirst(train).map((row) => splitByTraining(row, decode, ROW_TOKENS)),
  };
}

function takeFirst(examples: Examples): Example[] {
  return Array.from(
    { length: Math.min(SHOWN_ROWS, examples.length) },
    (_, row) => examples.at(row) as Example,
  );
}

/**
 * Returns a function that emits generated texts after `step` steps, if a dashboard is open and the model is a language
 * model. A failure is a warning and does not end the run.
 */
export function createSampling(
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
      const event = await samples.generateAt(step, ending);
      if (event.texts.length > 0) emit(event);
    } catch (error) {
      if (ending.aborted) return;
      failed = true;
      const what = "no more samples are written for the dashboard";
      emit({ type: "warning", message: `step ${step}: ${what}: ${(error as Error).message}` });
    }
  };
}

/** Continuations by a language model, decoded greedily so that no random numbers are drawn. */
class Samples {
  readonly #model: CausalLM;
  readonly #prompts: Int32Array[];
  /** The continuations by the base model, which do not change. */
  #base: string[] | undefined;

  constructor(model: CausalLM, { train, held }: Prepared) {
    this.#model = model;
    const limit = Math.min(PROMPT_TOKENS, model.config.maxPositionEmbeddings - 1);
    this.#prompts = takeFirst(held.length > 0 ? held : train)
      .map((row) => readPrompt(row).subarray(0, limit))
      .filter(({ length }) => length > 0);
  }

  /** Rejects with the signal's reason, or with the errors of `generate`. */
  async generateAt(step: number, signal: AbortSignal): Promise<SampleEvent> {
    const model = this.#model;
    const generateTexts = async (): Promise<string[]> => {
      const texts: string[] = [];
      for (const prompt of this.#prompts) texts.push(await generateAfter(model, prompt, signal));
      return texts;
    };
    // Generation must not advance the run's random numbers.
    return runWithRandom(0, async () => {
      this.#base ??= await withoutAdapters(model, generateTexts);
      const [base, tuned] = [this.#base, await generateTexts()];
      const texts = this.#prompts.map((ids, i) => {
        const prompt = model.tokenizer?.decode(ids, { skipSpecialTokens: false }) ?? "";
        return { prompt, base: base[i] as string, tuned: tuned[i] as string };
      });
      return { type: "sample", step, texts };
    });
  }
}

async function generateAfter(model: CausalLM, prompt: Int32Array, signal: AbortSignal): Promise<string> {
  let text = "";
  for await (const piece of model.generate(prompt, { maxNewTokens: NEW_TOKENS, signal })) text += piece.text;
  return text;
}

/** Returns a row's tokens before the first trained one; for a row that is trained from its start, a short beginning. */
function readPrompt(row: Example): Int32Array {
  const { ids } = row;
  let first = 0;
  while (first < ids.length && !isTrained(row, first)) first++;
  return first > 1 ? ids.subarray(0, first) : ids.subarray(0, Math.min(BEGINNING, Math.ceil(ids.length / 2)));
}
