/** The tokens that a model chooses after prompts, over a cache of keys and values. */
import { tensor } from "../create.js";
import { throwIfAborted } from "../errors.js";
import { perRow } from "../lora/adapter/per-row.js";
import { evaluating, noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { KeyValueCache } from "./cache.js";
import type { CausalLM } from "./causal-lm.js";
import { Padding } from "./padding.js";
import { selectedRows, type Choice, type Sampler } from "./sampler.js";

/** What a text is given next. */
export interface Chosen {
  /** Which of the prompts it is. */
  text: number;
  token: number;
}

/** What was recorded for the texts that were left then, and its outcome, which is read at once. */
interface Step {
  choice: Choice;
  texts: readonly number[];
  tokens: Promise<Int32Array>;
}

/** What each text is to be given, and by which adapters. */
export interface DecodingOptions {
  /** The most tokens of each text. */
  counts: readonly number[];
  adapterPerRow: readonly (string | null)[] | undefined;
  signal: AbortSignal | undefined;
}

/**
 * Decodes several texts at once, the shorter prompts padded on the left. The device chooses and goes on with what it
 * chose: the token after next is recorded while the next is computed, so that it never waits for the host. Tokens
 * that nobody asks for any more are computed for nothing; texts that have ended leave the batch.
 */
export class Decoding {
  readonly #cache: KeyValueCache;
  readonly #padding: Padding;
  /** Texts that are left, in the order of the batch's rows. */
  #texts: readonly number[];
  #ended = new Set<number>();
  #made = 0;
  #following: Step | undefined;
  /** What was chosen last, where the host hands it on. */
  #last: { step: Step; tokens: Int32Array } | undefined;
  /** Ids that the device chose are not checked against the embedding's rows. */
  readonly #ahead: boolean;

  constructor(
    private readonly model: CausalLM,
    private readonly prompts: readonly Int32Array[],
    private readonly sampler: Sampler,
    private readonly options: DecodingOptions,
  ) {
    this.#texts = prompts.flatMap((_, text) => ((options.counts[text] as number) > 0 ? [text] : []));
    this.#padding = new Padding(this.#texts.map((text) => (prompts[text] as Int32Array).length));
    this.#ahead = model.lm_head.outFeatures <= model.inputEmbedding().numEmbeddings;
    this.#cache = model.newCache(this.#texts.length, model.config.maxPositionEmbeddings);
  }

  /** The next token of each text that has not ended; none when all have. Throws `ERR_NOT_FINITE`, or the signal's reason. */
  async next(): Promise<Chosen[]> {
    throwIfAborted(this.options.signal);
    for (const text of this.#texts) if (this.#made >= (this.options.counts[text] as number)) this.end(text);
    const step = this.#following ?? (this.#last ? this.#after(this.#last) : this.#first());
    this.#following = this.#last = undefined;
    if (step === undefined || this.#left(step).length === 0) {
      step?.choice.dispose();
      return [];
    }
    try {
      this.#made++;
      if (this.#ahead) this.#following = this.#after({ step });
      const tokens = await step.tokens;
      if (!this.#ahead) this.#last = { step, tokens };
      return step.texts.flatMap((text, row) =>
        this.#ended.has(text) ? [] : [{ text, token: tokens[row] as number }],
      );
    } finally {
      step.choice.dispose();
    }
  }

  /** Asks for no more tokens of `text`. */
  end(text: number): void {
    this.#ended.add(text);
  }

  dispose(): void {
    this.#following?.choice.dispose();
    this.#cache.dispose();
    this.#padding.dispose();
    this.sampler.dispose();
  }

  #left({ texts }: { texts: readonly number[] }): number[] {
    return texts.flatMap((text, row) => (this.#ended.has(text) ? [] : [row]));
  }

  #first(): Step | undefined {
    if (this.#texts.length === 0 || this.#made > 0) return undefined;
    return this.#step(() => {
      const ids = this.#padding.padded(this.#texts.map((text) => this.prompts[text] as Int32Array));
      return tensor(ids, { shape: [this.#texts.length, this.#padding.length], device: this.model.device });
    });
  }

  /** What follows `step`, for the texts of it that want more; `tokens` are its outcome where the host hands it on. */
  #after({ step, tokens }: { step: Step; tokens?: Int32Array | undefined }): Step | undefined {
    const rows = this.#left(step).filter((row) => {
      const text = step.texts[row] as number;
      return this.#made < (this.options.counts[text] as number);
    });
    if (rows.length === 0) return undefined;
    return this.#step(() => {
      if (rows.length < step.texts.length) {
        this.#texts = rows.map((row) => step.texts[row] as number);
        this.#cache.select(rows, this.#padding.select(rows));
        this.sampler.select(rows);
      }
      if (tokens !== undefined) {
        const ids = Int32Array.from(rows, (row) => tokens[row] as number);
        return tensor(ids, { shape: [rows.length, 1], device: this.model.device });
      }
      return rows.length < step.texts.length ? selectedRows(step.choice.token, rows) : step.choice.token;
    });
  }

  /** Records the forward pass over the ids that `given` makes, and the choice of what follows them. */
  #step(given: () => Tensor): Step {
    const choice = evaluating(() =>
      noGrad(() =>
        scope(() => {
          const ids = given();
          const names = this.options.adapterPerRow;
          const own = names && this.#texts.map((text) => names[text] as string | null);
          const logits = perRow(this.model, this.#texts.length, own, () => this.#logits(ids));
          return this.sampler.choose(logits, this.#made);
        }),
      ),
    );
    const tokens = choice.read();
    // What is recorded and then not asked for fails where nobody hears it.
    tokens.catch(() => undefined);
    return { choice, texts: this.#texts, tokens };
  }

  /** Logits [n, V] of the tokens after `ids` [n, T], which are appended to the cache. */
  #logits(ids: Tensor): Tensor {
    const T = ids.shape[1] as number;
    const options = this.#padding.inputs(this.#cache.length, T, this.model.device);
    const hidden = this.model.hidden(ids, options, this.#cache);
    const logits = this.model.logitsOf(hidden.slice(1, T - 1));
    return logits.reshape(this.#texts.length, -1);
  }
}
