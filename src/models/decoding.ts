/** Batched decoding: chooses the tokens that follow prompts, with a KV cache. */
import { tensor } from "../tensor/create.js";
import { throwIfAborted } from "../errors.js";
import { runPerRow } from "../lora/adapter/per-row.js";
import { runEvaluating, noGrad, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { CausalLM } from "./causal-lm.js";
import type { ChosenLogprobs } from "./logprobs.js";
import { type Choice, type ChosenTokens, concatenate, type SampledText, selectRows } from "./sampler.js";
import { padPrompts, type BatchRow, TextBatch } from "./text-batch.js";

/** A text being decoded. */
export interface DecodedText extends SampledText {
  /** The maximum number of new tokens. */
  readonly count: number;
  /** The adapter's name, null for the base model, undefined for the active adapters. */
  readonly adapter?: string | null | undefined;
}

/** The next token of a text, or the error that ended it. */
export type NextToken = { text: DecodedText } & (
  { token: number; logprobs?: ChosenLogprobs | undefined } | { failure: unknown }
);

/** Texts admitted together; an error in one of them ends all. */
interface Group {
  texts: readonly DecodedText[];
  /** Tokens chosen so far for each text. */
  generated: number;
}

/** A row of a step's batch. */
interface Row {
  group: Group;
  text: DecodedText;
}

/** A recorded forward pass with the choice of one token per row. */
interface Step {
  batch: TextBatch;
  rows: readonly Row[];
  /** The choice; `tokens` and `logprobs` are its pending reads. */
  choice: Choice;
  tokens: Promise<ChosenTokens>;
  logprobs: Promise<ReadonlyMap<number, ChosenLogprobs>>;
}

/** A step, with its tokens where the host feeds them to the next one. */
interface PendingStep {
  step: Step;
  tokens?: Int32Array | undefined;
}

/**
 * Decodes several texts as one batch, the shorter ones padded on the left. Texts can be admitted while others are
 * decoded: their prompts are computed separately, and they join the batch with their second token.
 *
 * The device chooses the tokens of all rows in one launch and feeds them to the next step, so step t + 1 is recorded
 * while step t is computed, and the device never waits for the host. Tokens of texts that end meanwhile are discarded;
 * ended texts leave the batch.
 */
export class Decoding {
  /** Groups whose prompts have not been computed yet. */
  #entering: Group[] = [];
  /** Steps recorded and not read yet. */
  #recorded: Step[] = [];
  /** Steps read and not continued yet, where the host feeds the tokens. */
  #past: PendingStep[] = [];
  readonly #ended = new WeakSet<DecodedText>();
  /** Whether the device feeds tokens to the next step; such ids are not checked against the embedding's rows. */
  readonly #recordsAhead: boolean;

  constructor(
    private readonly model: CausalLM,
    private readonly signal?: AbortSignal | undefined,
  ) {
    this.#recordsAhead = model.lm_head.outFeatures <= model.getInputEmbedding().numEmbeddings;
  }

  /** Adds texts, starting with the next step. */
  admit(texts: readonly DecodedText[]): void {
    const wanted = texts.filter(({ count }) => count > 0);
    if (wanted.length > 0) this.#entering.push({ texts: wanted, generated: 0 });
  }

  /**
   * Returns the next token of each text that has not ended; empty once all have. If one text fails, its whole group
   * gets the error (`ERR_NOT_FINITE`, or an error of the prompt). Throws an error that ends all texts, and the signal's
   * reason.
   */
  async next(): Promise<NextToken[]> {
    throwIfAborted(this.signal);
    const failed: NextToken[] = [];
    try {
      const continued = this.#continue(this.#past);
      this.#past = [];
      if (continued !== undefined) this.#recorded.push(continued);
      for (const groups of groupByLikeLength(this.#entering.splice(0))) failed.push(...this.#enter(groups));
    } catch (error) {
      this.dispose();
      throw error;
    }
    const steps = this.#recorded;
    this.#recorded = [];
    try {
      if (this.#recordsAhead) {
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

  /** Ends `text`: no more tokens are returned for it. */
  end(text: DecodedText): void {
    this.#ended.add(text);
  }

  dispose(): void {
    for (const step of [...this.#recorded, ...this.#past.map(({ step }) => step)]) release(step);
    this.#entering = [];
    this.#recorded = [];
    this.#past = [];
  }

  /** Reads the tokens of steps, for the texts that have not ended. */
  async #read(steps: readonly Step[]): Promise<NextToken[]> {
    const chosen: NextToken[] = [];
    for (const step of steps) {
      let tokens: Int32Array | undefined;
      if (step.rows.some(({ text }) => !this.#ended.has(text))) {
        try {
          const read = await step.tokens;
          const logprobs = await step.logprobs;
          chosen.push(...this.#endFailed(step, read.bad));
          for (const [row, { text }] of step.rows.entries())
            if (!this.#ended.has(text))
              chosen.push({ text, token: read.tokens[row] as number, logprobs: logprobs.get(row) });
          tokens = read.tokens;
        } catch (failure) {
          for (const group of new Set(step.rows.map(({ group }) => group)))
            chosen.push(...this.#fail(group, failure));
        }
      }
      if (!this.#recordsAhead) this.#past.push({ step, tokens });
    }
    return chosen;
  }

  /** Ends groups with a row whose logits are not finite; returns their errors. */
  #endFailed({ rows, batch }: Step, invalid: Int32Array): NextToken[] {
    return rows.flatMap(({ group, text }, row): NextToken[] => {
      const place = invalid[row] as number;
      if (place < 0 || this.#ended.has(text)) return [];
      const groupRows = rows.filter((other) => other.group === group);
      const which =
        groupRows.length > 1
          ? ` of text ${groupRows.findIndex((other) => other.text === text)} of those left`
          : "";
      return this.#fail(group, batch.sampler.createNotFiniteError(row, place, which));
    });
  }

  /** Ends a group's texts with an error; returns it for each of them. */
  #fail({ texts }: Group, failure: unknown): NextToken[] {
    const left = texts.filter((text) => !this.#ended.has(text));
    for (const text of left) this.end(text);
    return left.map((text) => ({ text, failure }));
  }

  /**
   * Computes the prompts of groups in one batch; if that fails, group by group. Returns the errors of failed groups.
   */
  #enter(groups: readonly Group[]): NextToken[] {
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
    const wanted = rows.filter((row) => this.#isWanted(row));
    if (wanted.length === 0) return undefined;
    const texts = wanted.map(({ text }) => text);
    const { config, device, lm_head } = this.model;
    const batch = TextBatch.fromPrompts(texts, lm_head.outFeatures, device, (count) =>
      this.model.createCache(count, config.maxPositionEmbeddings),
    );
    return this.#recordStep(batch, wanted, () => padPrompts(texts, device));
  }

  /** Records the next step, as one batch, for those texts of `past` that have not ended; undefined where all have. */
  #continue(past: readonly PendingStep[]): Step | undefined {
    const live = past.flatMap(({ step, tokens }) =>
      step.rows.flatMap((row, at) => (this.#isWanted(row) ? [{ step, tokens, row, at }] : [])),
    );
    const batches = new Set(live.map(({ step }) => step.batch));
    for (const { step } of past) if (!batches.has(step.batch)) step.batch.dispose();
    const [only] = live;
    if (only === undefined) return undefined;
    // Adjacent rows of the same adapter share one matrix product.
    if (batches.size > 1) live.sort((a, b) => compareAdapters(a.row.text, b.row.text));
    const isWholeBatch = batches.size === 1 && live.length === only.step.batch.rows;
    const places = live.map(({ step: { batch }, at }): BatchRow => ({ batch, row: at }));
    const batch = isWholeBatch ? only.step.batch : scope(() => TextBatch.fromRows(places));
    const gatherIds = (): Tensor => {
      if (only.tokens === undefined) return gatherChosenIds(live);
      const ids = Int32Array.from(live, ({ tokens, at }) => tokens?.[at] as number);
      return tensor(ids, { shape: [ids.length, 1], device: this.model.device });
    };
    return this.#recordStep(
      batch,
      live.map(({ row }) => row),
      gatherIds,
    );
  }

  #isWanted({ group, text }: Row): boolean {
    return !this.#ended.has(text) && group.generated < text.count;
  }

  /**
   * Records the forward pass over the ids that `given` returns, and the choice of the next tokens. Frees the batch if
   * that fails.
   */
  #recordStep(batch: TextBatch, rows: readonly Row[], given: () => Tensor): Step {
    const draws = rows.map(({ group }) => group.generated);
    let choice: Choice;
    try {
      choice = runEvaluating(() => noGrad(() => scope(() => this.#choose(batch, rows, given(), draws))));
    } catch (error) {
      batch.dispose();
      throw error;
    }
    for (const group of new Set(rows.map(({ group }) => group))) group.generated++;
    const [tokens, logprobs] = [choice.read(), choice.readLogprobs()];
    // Reads of a step that is discarded must not become unhandled rejections.
    for (const read of [tokens, logprobs]) read.catch(() => undefined);
    return { batch, rows, choice, tokens, logprobs };
  }

  #choose(batch: TextBatch, rows: readonly Row[], ids: Tensor, draws: readonly number[]): Choice {
    const names = rows.map(({ text: { adapter } }) => adapter);
    const adapterNames = names.filter((name) => name !== undefined);
    const adapters = adapterNames.length === names.length ? adapterNames : undefined;
    const logits = runPerRow(this.model, names.length, adapters, () => this.#computeLogits(batch, ids));
    return batch.sampler.choose(logits, draws);
  }

  /** Returns the logits [n, V] after `ids` [n, T], and appends the ids to the cache. */
  #computeLogits({ cache, padding }: TextBatch, ids: Tensor): Tensor {
    const [n, T] = ids.shape as [number, number];
    const options = padding.buildInputs(cache.length, T, this.model.device);
    const hidden = this.model.computeHidden(ids, options, cache);
    const logits = this.model.computeLogits(hidden.slice(1, T - 1));
    return logits.reshape(n, -1);
  }
}

/** Gathers the ids i32 [n, 1] chosen at rows of steps. */
function gatherChosenIds(live: readonly { step: Step; at: number }[]): Tensor {
  const runs: { step: Step; rows: number[] }[] = [];
  for (const { step, at } of live) {
    const last = runs.at(-1);
    if (last?.step === step) last.rows.push(at);
    else runs.push({ step, rows: [at] });
  }
  return concatenate(
    runs.map(({ step, rows }) =>
      rows.length < step.rows.length ? selectRows(step.choice.token, rows) : step.choice.token,
    ),
  );
}

/** Frees a step's batch and tokens. */
function release({ batch, choice }: Step): void {
  choice.dispose();
  batch.dispose();
}

/**
 * Splits groups into batches of similar prompt length, so that padding is at most half of a batch. Within a batch,
 * groups of the same adapter are adjacent, so that their rows share one matrix product.
 */
function groupByLikeLength(groups: readonly Group[]): Group[][] {
  const lengths = new Map(groups.map((group) => [group, group.texts.map(({ prompt }) => prompt.length)]));
  const findLongest = (group: Group): number => Math.max(...(lengths.get(group) as number[]));
  const batches: Group[][] = [];
  let [rows, tokens] = [0, 0];
  for (const group of [...groups].sort((a, b) => findLongest(a) - findLongest(b))) {
    const groupLengths = lengths.get(group) as number[];
    const sum = groupLengths.reduce((total, length) => total + length, 0);
    if (batches.length === 0 || (rows + groupLengths.length) * findLongest(group) > 2 * (tokens + sum)) {
      batches.push([]);
      [rows, tokens] = [0, 0];
    }
    batches.at(-1)?.push(group);
    rows += groupLengths.length;
    tokens += sum;
  }
  return batches.map((batch) => batch.sort((a, b) => compareAdapters(a.texts[0], b.texts[0])));
}

/** Orders texts by adapter, the base model first. */
function compareAdapters(a: DecodedText | undefined, b: DecodedText | undefined): number {
  const [left, right] = [a?.adapter ?? "", b?.adapter ?? ""];
  return left < right ? -1 : left > right ? 1 : 0;
}
