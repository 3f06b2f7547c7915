/** The tokens that a model chooses after prompts, over a cache of keys and values. */
import { tensor } from "../create.js";
import { throwIfAborted } from "../errors.js";
import { perRow } from "../lora/adapter/per-row.js";
import { evaluating, noGrad, scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import type { CausalLM } from "./causal-lm.js";
import type { ChosenLogprobs } from "./logprobs.js";
import { selectedRows, type Choice, type Sampler } from "./sampler.js";
import { paddedPrompts, type Place, TextBatch } from "./text-batch.js";

/** A text that is decoded. */
export interface DecodedText {
  readonly prompt: Int32Array;
  /** The most tokens of it. */
  readonly count: number;
  /** Its adapter, null for the base alone; undefined for those that are active. */
  readonly adapter?: string | null | undefined;
}

/** The next token of a text, or the error that ends it. */
export type Chosen = { text: DecodedText } & (
  { token: number; logprobs?: ChosenLogprobs | undefined } | { failure: unknown }
);

/** Texts that were admitted together: one sampler draws their tokens. */
interface Group {
  sampler: Sampler;
  /** Those that are left. */
  texts: readonly DecodedText[];
  /** Tokens chosen so far of each of them. */
  made: number;
}

/** The neighbouring rows of a step that are a group's. */
interface Part {
  group: Group;
  texts: readonly DecodedText[];
  choice: Choice;
  /** The choice, which is read at once. */
  tokens: Promise<Int32Array>;
  logprobs: Promise<ChosenLogprobs[] | undefined>;
}

/** A forward pass that was recorded, and the choice of a token for each row. */
interface Step {
  batch: TextBatch;
  parts: readonly Part[];
}

/** A step with its tokens where the host hands them on. */
interface Past {
  step: Step;
  tokens?: ReadonlyMap<Part, Int32Array> | undefined;
}

/**
 * Decodes several texts at once, the shorter ones padded on the left. Texts may be admitted while others are decoded:
 * their prompts are computed by themselves, and they join the batch with their second token. The device chooses, and
 * continues with its choice: the token after next is recorded while the next is computed, so that it never waits for the
 * host. Tokens that are no longer wanted are computed for nothing; texts that have ended leave the batch.
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

  /** Decodes texts from the next step on; `sampler`, which has a row for each, is freed with the last of them. */
  admit(texts: readonly DecodedText[], sampler: Sampler): void {
    const rows = texts.flatMap(({ count }, row) => (count > 0 ? [row] : []));
    if (rows.length === 0) return sampler.dispose();
    if (rows.length < texts.length) scope(() => sampler.select(rows));
    this.#entering.push({ sampler, texts: rows.map((row) => texts[row] as DecodedText), made: 0 });
  }

  /**
   * Gives the next token of each text that has not ended, and none once all have. If one text fails, it and those
   * admitted with it are given the error instead (`ERR_NOT_FINITE`, or an error of the prompt). Throws an error that ends
   * all texts, and the signal's reason.
   */
  async next(): Promise<Chosen[]> {
    throwIfAborted(this.signal);
    const failed: Chosen[] = [];
    const continued = this.#continue(this.#past);
    this.#past = [];
    if (continued !== undefined) this.#recorded.push(continued);
    for (const groups of ofLikeLength(this.#entering.splice(0))) failed.push(...this.#enter(groups));
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
      throw error;
    } finally {
      for (const { parts } of steps) for (const { choice } of parts) choice.dispose();
    }
  }

  /** Asks for no more tokens of `text`. */
  end(text: DecodedText): void {
    this.#ended.add(text);
  }

  dispose(): void {
    for (const { sampler } of this.#entering) sampler.dispose();
    for (const step of [...this.#recorded, ...this.#past.map(({ step }) => step)]) release(step);
    this.#entering = [];
    this.#recorded = [];
    this.#past = [];
  }

  /** The tokens of steps, for the texts that want them. */
  async #read(steps: readonly Step[]): Promise<Chosen[]> {
    const chosen: Chosen[] = [];
    for (const step of steps) {
      const tokens = new Map<Part, Int32Array>();
      for (const part of step.parts) {
        try {
          if (part.texts.every((text) => this.#ended.has(text))) continue;
          const own = await part.tokens;
          tokens.set(part, own);
          const logprobs = await part.logprobs;
          for (const [row, text] of part.texts.entries())
            if (!this.#ended.has(text))
              chosen.push({ text, token: own[row] as number, logprobs: logprobs?.[row] });
        } catch (failure) {
          chosen.push(...this.#fail(part.group, failure));
        }
      }
      if (!this.#ahead) this.#past.push({ step, tokens });
    }
    return chosen;
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
      return groups.flatMap((group) => {
        group.sampler.dispose();
        return this.#fail(group, failure);
      });
    }
  }

  #begin(entering: readonly Group[]): Step | undefined {
    const groups = entering.filter((group) => {
      const left = this.#wanting(group.texts, 0);
      if (left.length === 0) group.sampler.dispose();
      else this.#keep(group, left);
      return left.length > 0;
    });
    if (groups.length === 0) return undefined;
    const prompts = groups.flatMap(({ texts }) => texts.map(({ prompt }) => prompt));
    const limit = this.model.config.maxPositionEmbeddings;
    const batch = TextBatch.ofPrompts(prompts, (count) => this.model.newCache(count, limit));
    try {
      return this.#step(batch, groups, () => paddedPrompts(prompts, this.model.device));
    } catch (error) {
      for (const group of groups) group.made = 0;
      batch.dispose();
      throw error;
    }
  }

  /** What follows steps, for the texts of them that want more, as one batch. */
  #continue(past: readonly Past[]): Step | undefined {
    const kept = past.flatMap(({ step, tokens }) => {
      let start = 0;
      return step.parts.flatMap((part) => {
        const first = start;
        start += part.texts.length;
        const rows = this.#wanting(part.texts, part.group.made);
        if (rows.length === 0) part.group.sampler.dispose();
        return rows.length === 0 ? [] : [{ step, part, first, rows, tokens: tokens?.get(part) }];
      });
    });
    const batches = new Set(kept.map(({ step }) => step.batch));
    for (const { step } of past) if (!batches.has(step.batch)) step.batch.dispose();
    const [only, ...others] = kept;
    if (only === undefined) return undefined;
    // Rows of one adapter side by side are one product.
    if (batches.size > 1) kept.sort((a, b) => order(a.part.texts[0], b.part.texts[0]));
    const places = kept.flatMap(({ step, first, rows }): Place[] =>
      rows.map((row) => ({ batch: step.batch, row: first + row })),
    );
    const whole = batches.size === 1 && places.length === only.step.batch.rows;
    const batch = whole ? only.step.batch : scope(() => TextBatch.ofRows(places));
    const groups = kept.map(({ part, rows }) => {
      this.#keep(part.group, rows);
      return part.group;
    });
    const idsOf = (): Tensor => {
      if (only.tokens !== undefined) {
        const ids = kept.flatMap(({ rows, tokens }) =>
          rows.map((row) => (tokens as Int32Array)[row] as number),
        );
        return tensor(Int32Array.from(ids), { shape: [ids.length, 1], device: this.model.device });
      }
      const [first, ...rest] = kept.map(({ part: { choice, texts }, rows }) =>
        rows.length < texts.length ? selectedRows(choice.token, rows) : choice.token,
      ) as [Tensor, ...Tensor[]];
      return others.length === 0 ? first : first.concat(rest, 0);
    };
    try {
      return this.#step(batch, groups, idsOf);
    } catch (error) {
      // No step holds it that could free it.
      batch.dispose();
      throw error;
    }
  }

  /** The indices of texts that want more than `made` tokens. */
  #wanting(texts: readonly DecodedText[], made: number): number[] {
    return texts.flatMap((text, row) => (this.#ended.has(text) || made >= text.count ? [] : [row]));
  }

  /** Keeps the texts `rows` of a group; returns them. */
  #keep(group: Group, rows: readonly number[]): readonly DecodedText[] {
    if (rows.length < group.texts.length) {
      group.texts = rows.map((row) => group.texts[row] as DecodedText);
      scope(() => group.sampler.select(rows));
    }
    return group.texts;
  }

  /** Records the forward pass over the ids that `given` makes, and the choice of what follows them. */
  #step(batch: TextBatch, groups: readonly Group[], given: () => Tensor): Step {
    const choices = evaluating(() =>
      noGrad(() =>
        scope(() => {
          const ids = given();
          const names = groups.flatMap(({ texts }) => texts.map(({ adapter }) => adapter));
          const own = names.filter((name) => name !== undefined);
          const adapters = own.length === names.length ? own : undefined;
          const logits = perRow(this.model, names.length, adapters, () => this.#logits(batch, ids));
          let row = 0;
          return groups.map((group) => {
            const { length } = group.texts;
            const rows = length === names.length ? logits : logits.slice(0, row, row + length);
            row += length;
            return group.sampler.choose(rows, group.made++);
          });
        }),
      ),
    );
    const parts = groups.map((group, i): Part => {
      const choice = choices[i] as Choice;
      const [tokens, logprobs] = [choice.read(), choice.logprobs()];
      // A step that is recorded and then not wanted may fail unheard.
      for (const read of [tokens, logprobs]) read.catch(() => undefined);
      return { group, texts: group.texts, choice, tokens, logprobs };
    });
    return { batch, parts };
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

/** Frees a step's batch, tokens and samplers. */
function release({ batch, parts }: Step): void {
  for (const { choice, group } of parts) {
    choice.dispose();
    group.sampler.dispose();
  }
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
