/** The tokens that a model chooses after prompts, over a cache of keys and values. */
import { tensor } from "../create.js";
import { throwIfAborted } from "../errors.js";
import { perRow } from "../lora/adapter/per-row.js";
import { evaluating, noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { CausalLM } from "./causal-lm.js";
import type { ChosenLogprobs } from "./logprobs.js";
import { type Choice, type ChosenTokens, concatenated, type SampledText, selectedRows } from "./sampler.js";
import { paddedPrompts, type Place, TextBatch } from "./text-batch.js";

/** A text that is decoded. */
export interface DecodedText extends SampledText {
  /** The most tokens of it. */
  readonly count: number;
  /** Its adapter, null for the base alone; undefined for those that are active. */
  readonly adapter?: string | null | undefined;
}

/** The next token of a text, or the error that ends it. */
export type Chosen = { text: DecodedText } & (
  { token: number; logprobs?: ChosenLogprobs | undefined } | { failure: unknown }
);

/** Texts that were admitted together: an error of one ends all of them. */
interface Group {
  texts: readonly DecodedText[];
  /** Tokens chosen so far of each of them. */
  made: number;
}

/** A row of a step. */
interface Row {
  group: Group;
  text: DecodedText;
}

/** A forward pass that was recorded, and the choice of a token for each row. */
interface Step {
  batch: TextBatch;
  rows: readonly Row[];
  /** The choice, which is read at once. */
  choice: Choice;
  tokens: Promise<ChosenTokens>;
  logprobs: Promise<ReadonlyMap<number, ChosenLogprobs>>;
}

/** A step with its tokens where the host hands them on. */
interface Past {
  step: Step;
  tokens?: Int32Array | undefined;
}

/**
 * Decodes several texts at once, the shorter ones padded on the left. Texts may be admitted while others are decoded:
 * their prompts are computed by themselves, and they join the batch with their second token. The device chooses, all rows
 * by one launch, and continues with its choice: the token after next is recorded while the next is computed, so that it
 * never waits for the host. Tokens that are no longer wanted are computed for nothing; texts that have ended leave the
 * batch.
 */
export class Decoding {
  /** Groups whose prompts are not computed yet. */
  #entering: Group[] = [];
  /** Recorded and not read yet. */
  #recorded: Step[] = [];
  /** Read, and not continued yet: where the host hands tokens on. */
  #past: Past[] = [];
  readonly #ended = new WeakSet<DecodedText>();
  /** Ids that the device chose are not checked against the embedding's rows. */
  readonly #ahead: boolean;

  constructor(
    private readonly model: CausalLM,
    private readonly signal?: AbortSignal | undefined,
  ) {
    this.#ahead = model.lm_head.outFeatures <= model.inputEmbedding().numEmbeddings;
  }

  /** Decodes texts from the next step on. */
  admit(texts: readonly DecodedText[]): void {
    const wanted = texts.filter(({ count }) => count > 0);
    if (wanted.length > 0) this.#entering.push({ texts: wanted, made: 0 });
  }

  /**
   * Gives the next token of each text that has not ended, and none once all have. If one text fails, it and those
   * admitted with it are given the error instead (`ERR_NOT_FINITE`, or an error of the prompt). Throws an error that ends
   * all texts, and the signal's reason.
   */
  async next(): Promise<Chosen[]> {
    throwIfAborted(this.signal);
    const failed: Chosen[] = [];
    try {
      const continued = this.#continue(this.#past);
      this.#past = [];
      if (continued !== undefined) this.#recorded.push(continued);
      for (const groups of ofLikeLength(this.#entering.splice(0))) failed.push(...this.#enter(groups));
    } catch (error) {
      this.dispose();
      throw error;
    }
    const steps = this.#recorded;
    this.#recorded = [];
    try {
      if (this.#ahead) {
        const following = this.#continue(steps.map((step) => ({ step })));
        if (following !== undefined) this.#recorded = [following];
      }
      return [...failed, ...(await this.#read(steps))];
    } catch (error) {
      for (const step of steps) release(step);
      this.dispose();
      throw error;
    } finally {
      for (const { choice } of steps) choice.dispose();
    }
  }

  /** Asks for no more tokens of `text`. */
  end(text: DecodedText): void {
    this.#ended.add(text);
  }

  dispose(): void {
    for (const step of [...this.#recorded, ...this.#past.map(({ step }) => step)]) release(step);
    this.#entering = [];
    this.#recorded = [];
    this.#past = [];
  }

  /** The tokens of steps, for the texts that want them. */
  async #read(steps: readonly Step[]): Promise<Chosen[]> {
    const chosen: Chosen[] = [];
    for (const step of steps) {
      let tokens: Int32Array | undefined;
      if (step.rows.some(({ text }) => !this.#ended.has(text))) {
        try {
          const read = await step.tokens;
          const logprobs = await step.logprobs;
          chosen.push(...this.#failed(step, read.bad));
          for (const [row, { text }] of step.rows.entries())
            if (!this.#ended.has(text))
              chosen.push({ text, token: read.tokens[row] as number, logprobs: logprobs.get(row) });
          tokens = read.tokens;
        } catch (failure) {
          for (const group of new Set(step.rows.map(({ group }) => group)))
            chosen.push(...this.#fail(group, failure));
        }
      }
      if (!this.#ahead) this.#past.push({ step, tokens });
    }
    return chosen;
  }

  /** The errors of groups in which a row has no token; ends those groups. */
  #failed({ rows, batch }: Step, bad: Int32Array): Chosen[] {
    return rows.flatMap(({ group, text }, row): Chosen[] => {
      const place = bad[row] as number;
      if (place < 0 || this.#ended.has(text)) return [];
      const own = rows.filter((other) => other.group === group);
      const which =
        own.length > 1 ? ` of text ${own.findIndex((one) => one.text === text)} of those left` : "";
      return this.#fail(group, batch.sampler.notFinite(row, place, which));
    });
  }

  /** Ends a group's texts by an error; returns it for each of them. */
  #fail({ texts }: Group, failure: unknown): Chosen[] {
    const left = texts.filter((text) => !this.#ended.has(text));
    for (const text of left) this.end(text);
    return left.map((text) => ({ text, failure }));
  }

  /** Computes the prompts of groups side by side, or one by one if that fails; returns the errors of single groups. */
  #enter(groups: readonly Group[]): Chosen[] {
    try {
      const step = this.#begin(groups);
      if (step !== undefined) this.#recorded.push(step);
      return [];
    } catch (failure) {
      if (groups.length > 1) return groups.flatMap((group) => this.#enter([group]));
      return groups.flatMap((group) => this.#fail(group, failure));
    }
  }

  #begin(groups: readonly Group[]): Step | undefined {
    const rows = groups.flatMap((group) => group.texts.map((text) => ({ group, text })));
    const wanted = rows.filter((row) => this.#wants(row));
    if (wanted.length === 0) return undefined;
    const texts = wanted.map(({ text }) => text);
    const { config, device, lm_head } = this.model;
    const batch = TextBatch.ofPrompts(texts, lm_head.outFeatures, device, (count) =>
      this.model.newCache(count, config.maxPositionEmbeddings),
    );
    return this.#step(batch, wanted, () => paddedPrompts(texts, device));
  }

  /** What follows steps, for the texts of them that want more, as one batch. */
  #continue(past: readonly Past[]): Step | undefined {
    const kept = past.flatMap(({ step, tokens }) =>
      step.rows.flatMap((row, at) => (this.#wants(row) ? [{ step, tokens, row, at }] : [])),
    );
    const batches = new Set(kept.map(({ step }) => step.batch));
    for (const { step } of past) if (!batches.has(step.batch)) step.batch.dispose();
    const [only] = kept;
    if (only === undefined) return undefined;
    // Rows of one adapter side by side are one product.
    if (batches.size > 1) kept.sort((a, b) => order(a.row.text, b.row.text));
    const whole = batches.size === 1 && kept.length === only.step.batch.rows;
    const places = kept.map(({ step: { batch }, at }): Place => ({ batch, row: at }));
    const batch = whole ? only.step.batch : scope(() => TextBatch.ofRows(places));
    const idsOf = (): Tensor => {
      if (only.tokens === undefined) return chosenIds(kept);
      const ids = Int32Array.from(kept, ({ tokens, at }) => tokens?.[at] as number);
      return tensor(ids, { shape: [ids.length, 1], device: this.model.device });
    };
    return this.#step(
      batch,
      kept.map(({ row }) => row),
      idsOf,
    );
  }

  #wants({ group, text }: Row): boolean {
    return !this.#ended.has(text) && group.made < text.count;
  }

  /**
   * Records the forward pass over the ids that `given` makes, and the choice of what follows them. Frees the batch if that
   * fails.
   */
  #step(batch: TextBatch, rows: readonly Row[], given: () => Tensor): Step {
    const draws = rows.map(({ group }) => group.made);
    let choice: Choice;
    try {
      choice = evaluating(() => noGrad(() => scope(() => this.#choose(batch, rows, given(), draws))));
    } catch (error) {
      batch.dispose();
      throw error;
    }
    for (const group of new Set(rows.map(({ group }) => group))) group.made++;
    const [tokens, logprobs] = [choice.read(), choice.logprobs()];
    // A step that is recorded and then not wanted may fail unheard.
    for (const read of [tokens, logprobs]) read.catch(() => undefined);
    return { batch, rows, choice, tokens, logprobs };
  }

  #choose(batch: TextBatch, rows: readonly Row[], ids: Tensor, draws: readonly number[]): Choice {
    const names = rows.map(({ text: { adapter } }) => adapter);
    const own = names.filter((name) => name !== undefined);
    const adapters = own.length === names.length ? own : undefined;
    const logits = perRow(this.model, names.length, adapters, () => this.#logits(batch, ids));
    return batch.sampler.choose(logits, draws);
  }

  /** Logits [n, V] of the tokens after `ids` [n, T], which are appended to the cache. */
  #logits({ cache, padding }: TextBatch, ids: Tensor): Tensor {
    const [n, T] = ids.shape as [number, number];
    const options = padding.inputs(cache.length, T, this.model.device);
    const hidden = this.model.hidden(ids, options, cache);
    const logits = this.model.logitsOf(hidden.slice(1, T - 1));
    return logits.reshape(n, -1);
  }
}

/** The ids i32 [n, 1] that were chosen at rows of steps. */
function chosenIds(kept: readonly { step: Step; at: number }[]): Tensor {
  const runs: { step: Step; rows: number[] }[] = [];
  for (const { step, at } of kept) {
    const last = runs.at(-1);
    if (last?.step === step) last.rows.push(at);
    else runs.push({ step, rows: [at] });
  }
  return concatenated(
    runs.map(({ step, rows }) =>
      rows.length < step.rows.length ? selectedRows(step.choice.token, rows) : step.choice.token,
    ),
  );
}

/** Frees a step's batch and tokens. */
function release({ batch, choice }: Step): void {
  choice.dispose();
  batch.dispose();
}

/**
 * Groups whose prompts are computed side by side, so that at most half of a batch is padding; in each batch the groups
 * of one adapter are neighbours, so that their rows are one product.
 */
function ofLikeLength(groups: readonly Group[]): Group[][] {
  const lengths = new Map(groups.map((group) => [group, group.texts.map(({ prompt }) => prompt.length)]));
  const longest = (group: Group): number => Math.max(...(lengths.get(group) as number[]));
  const batches: Group[][] = [];
  let [rows, tokens] = [0, 0];
  for (const group of [...groups].sort((a, b) => longest(a) - longest(b))) {
    const own = lengths.get(group) as number[];
    const sum = own.reduce((total, length) => total + length, 0);
    if (batches.length === 0 || (rows + own.length) * longest(group) > 2 * (tokens + sum)) {
      batches.push([]);
      [rows, tokens] = [0, 0];
    }
    batches.at(-1)?.push(group);
    rows += own.length;
    tokens += sum;
  }
  return batches.map((batch) => batch.sort((a, b) => order(a.texts[0], b.texts[0])));
}

/** Compares texts by adapter, the base first. */
function order(a: DecodedText | undefined, b: DecodedText | undefined): number {
  const [left, right] = [a?.adapter ?? "", b?.adapter ?? ""];
  return left < right ? -1 : left > right ? 1 : 0;
}
