/** Chooses the next token of each text from its logits, on the device that has them. */
import { tensor } from "../create.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { keep } from "../scope.js";
import { madeAll, type Tensor } from "../tensor.js";
import type { CheckedOptions } from "./generate-options.js";
import { type ChosenLogprobs, Logprobs } from "./logprobs.js";

/** What was chosen of each row, on the device. */
export class Choice {
  /** `token` i32 [n, 1]; `evidence` [n] tells where a row's logits are no numbers. */
  constructor(
    readonly token: Tensor,
    private readonly evidence: Tensor,
    private readonly refused: (tokens: Int32Array, evidence: ArrayLike<number>) => LowrankError | undefined,
    private readonly scores?: Logprobs | undefined,
  ) {}

  /** The same choice with log-probabilities. */
  with(scores: Logprobs): Choice {
    return new Choice(this.token, this.evidence, this.refused, scores);
  }

  /** Throws `ERR_NOT_FINITE` where a row has a logit that is NaN. Call it once. */
  async read(): Promise<Int32Array> {
    const values = Promise.all([this.token.data(), this.evidence.data()]);
    this.evidence.dispose();
    const [tokens, evidence] = (await values) as [Int32Array, Int32Array | Float32Array];
    const error = this.refused(tokens, evidence);
    if (error !== undefined) throw error;
    return tokens;
  }

  /** The log-probabilities, one entry a row; undefined where none were asked for. Call it once. */
  async logprobs(): Promise<ChosenLogprobs[] | undefined> {
    return this.scores?.read();
  }

  dispose(): void {
    this.token.dispose();
    this.evidence.dispose();
    this.scores?.dispose();
  }
}

/**
 * Takes the likeliest tokens, or draws. Draw t of a seed is a function of both, so that what a text is given depends
 * neither on the texts beside it nor on the device; logits themselves may differ in their last bits between devices.
 */
export class Sampler {
  readonly #options: CheckedOptions;
  /** i32 [n, V], 1 where a token of the text was seen; none without a penalty. */
  #seen: Tensor | undefined;
  #seeds: Float64Array;

  /** `where` is who errors name; `vocabulary` is how many logits there are. */
  constructor(
    readonly where: string,
    options: CheckedOptions,
    seeds: readonly number[],
    texts: { ids: readonly Int32Array[]; vocabulary: number; device: Device },
  ) {
    this.#options = options;
    this.#seeds = Float64Array.from(seeds);
    if (options.repetitionPenalty === 1) return;
    const { ids, vocabulary, device } = texts;
    const seen = new Int32Array(ids.length * vocabulary);
    for (const [row, text] of ids.entries()) for (const id of text) seen[row * vocabulary + id] = 1;
    this.#seen = tensor(seen, { shape: [ids.length, vocabulary], device });
    keep(this.#seen);
  }

  /** Records the choice of token `t` of each row of logits [n, V]. */
  choose(logits: Tensor, t: number): Choice {
    const choice = this.#choice(logits, t);
    const { logprobs } = this.#options;
    return logprobs === undefined ? choice : choice.with(Logprobs.of(logits, choice.token, logprobs));
  }

  #choice(logits: Tensor, t: number): Choice {
    const { temperature, topK, topP, minP, repetitionPenalty } = this.#options;
    const vocabulary = logits.shape[1] as number;
    if (temperature === 0 && this.#seen === undefined) {
      const token = logits.argmax(1, { keepDim: true });
      return new Choice(token, logits.gather(1, token), (tokens, largest) => {
        const row = Array.prototype.findIndex.call(largest, Number.isNaN);
        return row < 0 ? undefined : this.#notFinite(row, tokens[row] as number, vocabulary);
      });
    }
    const options = { temperature, topK, topP, minP, repetitionPenalty };
    const [token, bad] = madeAll(() =>
      session().sample(logits.id, this.#seen?.id, this.#seeds, t, options),
    ) as [Tensor, Tensor];
    return new Choice(token.reshape(-1, 1), bad, (_, places) => {
      const row = Array.prototype.findIndex.call(places, (place: number) => place >= 0);
      return row < 0 ? undefined : this.#notFinite(row, places[row] as number, vocabulary);
    });
  }

  /** Keeps the texts `rows` alone, in this order. Call it in a scope. */
  select(rows: readonly number[]): void {
    this.#seeds = Float64Array.from(rows, (row) => this.#seeds[row] as number);
    const old = this.#seen;
    if (old === undefined) return;
    this.#seen = selectedRows(old, rows);
    keep(this.#seen);
    old.dispose();
  }

  #notFinite(row: number, token: number, vocabulary: number): LowrankError {
    const of = this.#seeds.length > 1 ? ` of text ${row} of those left` : "";
    const what = token < vocabulary ? `the logit of token ${token}${of} is NaN` : `every logit${of} is −∞`;
    return new LowrankError("ERR_NOT_FINITE", `${this.where}: ${what}`);
  }

  dispose(): void {
    this.#seen?.dispose();
  }
}

/** The rows of x, in this order. */
export function selectedRows(x: Tensor, rows: readonly number[]): Tensor {
  const [first, ...rest] = rows.map((row) => x.slice(0, row, row + 1)) as [Tensor, ...Tensor[]];
  return rest.length === 0 ? first : first.concat(rest, 0);
}
