/** Chooses the next token of each text of a batch from its logits, on the logits' device. */
import { tensor, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { keep, scope } from "../tensor/scope.js";
import { recordOps, type Tensor } from "../tensor/tensor.js";
import type { CheckedOptions } from "./generate-options.js";
import { LogitShifts, type ShiftOptions, shiftsLogits } from "./logit-shifts.js";
import { type ChosenLogprobs, Logprobs } from "./logprobs.js";

/** A text with its sampling options. */
export interface SampledText {
  /** The function name in errors. */
  readonly where: string;
  readonly prompt: Int32Array;
  readonly seed: number;
  readonly options: ShiftOptions &
    Pick<CheckedOptions, "temperature" | "topK" | "topP" | "minP" | "repetitionPenalty" | "logprobs">;
}

/** The tokens of a step, one per row. */
export interface ChosenTokens {
  tokens: Int32Array;
  /** Per row: −1, the first token with a NaN logit, or the vocabulary size where every logit is −∞. */
  bad: Int32Array;
}

/** The tokens chosen in a step, on the device. */
export class Choice {
  /** `token` is i32 [n, 1]; `badOf` computes `bad` from `evidence` [n]. */
  constructor(
    readonly token: Tensor,
    private readonly evidence: Tensor,
    private readonly badOf: (tokens: Int32Array, evidence: Int32Array | Float32Array) => Int32Array,
    private readonly scores?: { rows: readonly number[]; counts: readonly number[]; logprobs: Logprobs },
  ) {}

  /** Reads the tokens. Call it once. */
  async read(): Promise<ChosenTokens> {
    const values = Promise.all([this.token.data(), this.evidence.data()]);
    this.evidence.dispose();
    const [tokens, evidence] = (await values) as [Int32Array, Int32Array | Float32Array];
    return { tokens, bad: this.badOf(tokens, evidence) };
  }

  /** Reads the log-probabilities of the rows that requested them, by row. Call it once. */
  async readLogprobs(): Promise<ReadonlyMap<number, ChosenLogprobs>> {
    if (this.scores === undefined) return new Map();
    const { rows, counts, logprobs } = this.scores;
    const read = await logprobs.read();
    return new Map(
      read.map(({ logprob, top }, i) => [rows[i] as number, { logprob, top: top.slice(0, counts[i]) }]),
    );
  }

  dispose(): void {
    this.token.dispose();
    this.evidence.dispose();
    this.scores?.logprobs.dispose();
  }
}

/** Numbers per row that the engine expects; see `#numbers`. */
const NUMBERS = 7;

/**
 * Takes the most likely token of each row or samples one, by the row's options. Random number t of a seed is a function
 * of the two, so a text's tokens depend neither on the other rows nor on the device, except for rounding differences of
 * the logits between devices.
 */
export class Sampler {
  /** i32 [n, V], 1 for tokens that occur in the row's text; undefined if no row has a repetition penalty. */
  #seenTokens: Tensor | undefined;
  /** Undefined if no row has a bias or a penalty on chosen tokens. */
  #shifts: LogitShifts | undefined;
  /** Per row: seed, draw, temperature, top k, top p, min p, repetition penalty. */
  readonly #numbers: Float64Array;

  private constructor(
    private readonly texts: readonly SampledText[],
    private readonly vocabulary: number,
    private readonly device: Device,
  ) {
    this.#numbers = Float64Array.from(
      texts.flatMap(({ seed, options: { temperature, topK, topP, minP, repetitionPenalty } }) => [
        ...[seed, 0, temperature, topK, topP, minP, repetitionPenalty],
      ]),
    );
  }

  /** Creates a sampler with one row per text; `vocabulary` is the number of logits. */
  static create(texts: readonly SampledText[], vocabulary: number, device: Device): Sampler {
    const sampler = new Sampler(texts, vocabulary, device);
    if (texts.some(isShifted))
      sampler.#shifts = LogitShifts.create(
        texts.map(({ options }) => options),
        vocabulary,
        device,
      );
    if (!texts.some(isPenalised)) return sampler;
    const seen = new Int32Array(texts.length * vocabulary);
    for (const [row, text] of texts.entries())
      if (isPenalised(text)) for (const id of text.prompt) seen[row * vocabulary + id] = 1;
    sampler.#seenTokens = tensor(seen, { shape: [texts.length, vocabulary], device });
    keep(sampler.#seenTokens);
    return sampler;
  }

  /** Combines rows of other samplers, in the given order; the caller disposes of those. Call it in a scope. */
  static fromRows(places: readonly { sampler: Sampler; row: number }[]): Sampler {
    const texts = places.map(({ sampler, row }) => sampler.texts[row] as SampledText);
    const { vocabulary, device } = (places[0] as { sampler: Sampler }).sampler;
    const sampler = new Sampler(texts, vocabulary, device);
    /** Joins a state [n, V] of the rows, zeros where a sampler has none. */
    const join = (dtype: "i32" | "f32", read: (from: Sampler) => Tensor | undefined): Tensor =>
      concatenate(
        groupRuns(places).map(
          ({ sampler: from, row, count }) =>
            read(from)?.slice(0, row, row + count) ?? zeros([count, vocabulary], { dtype, device }),
        ),
      );
    if (texts.some(isShifted))
      sampler.#shifts = LogitShifts.fromRows(
        texts.map(({ options }) => options),
        (read) => join("f32", (from) => from.#shifts && read(from.#shifts)),
      );
    if (texts.some(isPenalised)) {
      sampler.#seenTokens = join("i32", (from) => from.#seenTokens);
      keep(sampler.#seenTokens);
    }
    return sampler;
  }

  /** Records the choice of each row's token number `draws[row]` from logits [n, V]. Call it in a scope. */
  choose(logits: Tensor, draws: readonly number[]): Choice {
    const { token, evidence, badOf } = this.#choose(this.#shifts?.apply(logits) ?? logits, draws);
    this.#shifts?.count(token);
    const rows = this.texts.flatMap(({ options }, row) => (options.logprobs === undefined ? [] : [row]));
    if (rows.length === 0) return new Choice(token, evidence, badOf);
    const counts = rows.map((row) => this.texts[row]?.options.logprobs as number);
    const all = rows.length === this.texts.length;
    const select = (x: Tensor): Tensor => (all ? x : selectRows(x, rows));
    const logprobs = Logprobs.compute(select(logits), select(token), Math.max(...counts));
    return new Choice(token, evidence, badOf, { rows, counts, logprobs });
  }

  #choose(
    logits: Tensor,
    draws: readonly number[],
  ): { token: Tensor; evidence: Tensor; badOf: ConstructorParameters<typeof Choice>[2] } {
    if (this.texts.every(isGreedy)) {
      const token = logits.argmax(1, { keepDim: true });
      return {
        token,
        evidence: logits.gather(1, token),
        badOf: (tokens, largest) =>
          Int32Array.from(tokens, (id, row) => (Number.isNaN(largest[row]) ? id : -1)),
      };
    }
    for (const [row, draw] of draws.entries()) this.#numbers[row * NUMBERS + 1] = draw;
    const [token, firstInvalid] = recordOps(() =>
      session().sample(logits.id, this.#seenTokens?.id, this.#numbers),
    ) as [Tensor, Tensor];
    return {
      token: token.reshape(-1, 1),
      evidence: firstInvalid,
      // Where all logits are −∞, a greedy row takes token 0, as in a batch of greedy rows only.
      badOf: (_, places) =>
        Int32Array.from(places, (place, row) =>
          place === this.vocabulary && isGreedy(this.texts[row] as SampledText) ? -1 : place,
        ),
    };
  }

  /** Returns the error of a row without a token; `which` is inserted after the logit's name. */
  createNotFiniteError(row: number, invalid: number, which = ""): LowrankError {
    const what =
      invalid < this.vocabulary
        ? `the logit of token ${invalid}${which} is NaN`
        : `every logit${which} is −∞`;
    return new LowrankError("ERR_NOT_FINITE", `${this.texts[row]?.where}: ${what}`);
  }

  dispose(): void {
    this.#seenTokens?.dispose();
    this.#shifts?.dispose();
  }
}

function isShifted({ options }: SampledText): boolean {
  return shiftsLogits(options);
}

function isPenalised({ options }: SampledText): boolean {
  return options.repetitionPenalty !== 1;
}

function isGreedy(text: SampledText): boolean {
  return text.options.temperature === 0 && !isPenalised(text);
}

/** Groups adjacent rows of the same sampler. */
function groupRuns(
  places: readonly { sampler: Sampler; row: number }[],
): { sampler: Sampler; row: number; count: number }[] {
  const runs: { sampler: Sampler; row: number; count: number }[] = [];
  for (const { sampler, row } of places) {
    const last = runs.at(-1);
    if (last?.sampler === sampler && last.row + last.count === row) last.count++;
    else runs.push({ sampler, row, count: 1 });
  }
  return runs;
}

/** Returns the given rows of x, in this order. */
export function selectRows(x: Tensor, rows: readonly number[]): Tensor {
  return scope(() => {
    const parts: Tensor[] = [];
    for (let i = 0; i < rows.length;) {
      const first = rows[i] as number;
      let count = 1;
      while (rows[i + count] === first + count) count++;
      parts.push(x.slice(0, first, first + count));
      i += count;
    }
    return concatenate(parts);
  });
}

/** Concatenates tensors along their first dimension. */
export function concatenate(parts: readonly Tensor[]): Tensor {
  const [first, ...rest] = parts as [Tensor, ...Tensor[]];
  return rest.length === 0 ? first : first.concat(rest, 0);
}
