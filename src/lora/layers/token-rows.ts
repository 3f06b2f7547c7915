/** Layers of whose weight some rows are trained as they are (PEFT's TrainableTokensLayer). */
import { tensor } from "../../create.js";
import type { Device } from "../../device.js";
import { session } from "../../native.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { keep, noGrad, scope } from "../../scope.js";
import { made, parameter, type Tensor } from "../../tensor.js";

/** Rows that stand in the place of a weight's own: their new values, not differences. */
export class TokenRows {
  /** [n, d]. */
  values: Tensor;
  /** [rows of the weight, 1]: which value replaces a row, −1 for none. */
  #slots: Tensor;

  constructor(
    weight: Tensor,
    readonly indices: readonly number[],
    /** The adapter's name. */
    readonly name: string,
  ) {
    const { device, shape } = weight;
    const slots = new Float32Array(shape[0] as number).fill(-1);
    for (const [slot, index] of indices.entries()) slots[index] = slot;
    this.#slots = tensor(slots, { shape: [slots.length, 1], device });
    keep(this.#slots);
    const ids = tensor(Int32Array.from(indices), { device });
    this.values = parameter(noGrad(() => made(() => session().embedding(weight.id, ids.id, false))));
    ids.dispose();
  }

  /** The rows of `ids` [...] where they are replaced, and those of `base` [..., d] elsewhere. */
  over(base: Tensor, ids: Tensor): Tensor {
    const slots = made(() => session().embedding(this.#slots.id, ids.id, false));
    return this.#chosen(base, slots, ids.shape);
  }

  /** The whole weight [rows, d] with its rows replaced. */
  within(weight: Tensor): Tensor {
    return this.#chosen(weight, this.#slots, [weight.shape[0] as number]);
  }

  #chosen(base: Tensor, slots: Tensor, shape: readonly number[]): Tensor {
    const at = slots
      .clamp(0, this.indices.length - 1)
      .to("i32")
      .reshape(shape);
    const rows = made(() => session().embedding(this.values.id, at.id, false));
    return base.where(slots.lt(0), rows);
  }

  to(device: Device): void {
    for (const part of [this.values, this.#slots]) {
      const moved = part.to(device);
      if (moved === part) continue;
      keep(moved);
      if (part === this.values) this.values = parameter(moved, part.requiresGrad);
      else this.#slots = moved;
      part.dispose();
    }
  }

  dispose(): void {
    this.values.dispose();
    this.#slots.dispose();
  }
}

/** What stands in the place of a layer whose rows are trained. */
export interface TokenLayer extends Module {
  readonly rows: TokenRows;
  readonly base: Embedding | Linear;
  /** Whether the rows are another layer's, which this one's weight is tied to. */
  readonly tied: boolean;
}

const NAME = "token_adapter.trainable_tokens_delta";

/** Names and values of a token layer, beside its base's own. */
function* ownRows({ rows, tied }: TokenLayer): IterableIterator<[string, Tensor]> {
  if (!tied) yield [`${NAME}.${rows.name}`, rows.values];
}

/** y = W'[ids], where W' is the base's weight with its rows replaced. */
export class TokenEmbedding extends Embedding implements TokenLayer {
  readonly #base: Embedding;
  readonly tied = false;

  constructor(
    base: Embedding,
    readonly rows: TokenRows,
  ) {
    super(base.numEmbeddings, base.embeddingDim, {
      weight: base.weight,
      ...(base.paddingIdx === undefined ? {} : { paddingIdx: base.paddingIdx }),
    });
    this.#base = base;
  }

  get base(): Embedding {
    return this.#base;
  }

  override forward(ids: Tensor): Tensor {
    return this.rows.over(super.forward(ids), ids);
  }

  override *ownParameters(): IterableIterator<[string, Tensor]> {
    yield* super.ownParameters();
    yield* ownRows(this);
  }

  override *ownState(): IterableIterator<[string, Tensor]> {
    yield ["weight", this.weight];
    yield* ownRows(this);
  }

  override to(device: Device): this {
    this.weight = this.#base.to(device).weight;
    this.rows.to(device);
    return this;
  }

  /** The base keeps its weight. */
  override dispose(): void {
    this.rows.dispose();
  }
}

/** y = x·W'ᵀ + b, where W' is the base's weight with its rows replaced. */
export class TokenLinear extends Linear implements TokenLayer {
  readonly #base: Linear;

  constructor(
    base: Linear,
    readonly rows: TokenRows,
    readonly tied: boolean,
  ) {
    const { inFeatures, outFeatures, weight, bias } = base;
    super(inFeatures, outFeatures, { weight, ...(bias ? { biasValues: bias } : {}) });
    this.#base = base;
  }

  get base(): Linear {
    return this.#base;
  }

  override forward(x: Tensor): Tensor {
    const weight = this.rows.within(this.weight);
    return made(() => session().linear(x.id, weight.id, this.bias?.id, false));
  }

  override *ownParameters(): IterableIterator<[string, Tensor]> {
    yield* super.ownParameters();
    yield* ownRows(this);
  }

  override *ownState(): IterableIterator<[string, Tensor]> {
    yield ["weight", this.weight];
    if (this.bias) yield ["bias", this.bias];
    yield* ownRows(this);
  }

  override to(device: Device): this {
    ({ weight: this.weight, bias: this.bias } = this.#base.to(device));
    if (!this.tied) this.rows.to(device);
    return this;
  }

  override dispose(): void {
    if (!this.tied) this.rows.dispose();
  }
}

export function isTokenLayer(module: object): module is TokenLayer {
  return module instanceof TokenEmbedding || module instanceof TokenLinear;
}

/** What an adapter's file holds of a token layer. */
export function tokenState({ rows, tied }: TokenLayer): Record<string, Tensor> {
  return tied ? {} : { [NAME]: rows.values };
}

/** Puts the rows into the base's weight for good, as a new tensor; gives the old one. */
export function mergeTokens({ base, rows }: TokenLayer): Tensor {
  const { weight } = base;
  const merged = noGrad(() => scope(() => rows.within(weight).to(weight.dtype)));
  base.weight = parameter(merged, false);
  return weight;
}
