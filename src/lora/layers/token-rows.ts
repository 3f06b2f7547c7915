/** Layers that train individual rows of a weight (PEFT's TrainableTokensLayer). */
import { tensor } from "../../tensor/create.js";
import type { Device } from "../../device/device.js";
import { session } from "../../native/binding.js";
import { Embedding } from "../../nn/embedding.js";
import { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { keep, noGrad, scope } from "../../tensor/scope.js";
import { recordOp, makeParameter, type Tensor } from "../../tensor/tensor.js";

/** Trained replacements for rows of a weight. They are new values, not differences. */
export class TokenRows {
  /** [n, d]. */
  values: Tensor;
  /** [rows of the weight, 1]: the index in `values` that replaces the row, or −1. */
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
    this.values = makeParameter(noGrad(() => recordOp(() => session().embedding(weight.id, ids.id, false))));
    ids.dispose();
  }

  /** Returns the replaced rows of `ids` [...], and the rows of `base` [..., d] for all other ids. */
  overlayRows(base: Tensor, ids: Tensor): Tensor {
    const slots = recordOp(() => session().embedding(this.#slots.id, ids.id, false));
    return this.#overlay(base, slots, ids.shape);
  }

  /** Returns the whole weight [rows, d] with its rows replaced. */
  overlayWeight(weight: Tensor): Tensor {
    return this.#overlay(weight, this.#slots, [weight.shape[0] as number]);
  }

  #overlay(base: Tensor, slots: Tensor, shape: readonly number[]): Tensor {
    const places = slots
      .clamp(0, this.indices.length - 1)
      .to("i32")
      .reshape(shape);
    const rows = recordOp(() => session().embedding(this.values.id, places.id, false));
    return base.where(slots.lt(0), rows);
  }

  to(device: Device): void {
    for (const part of [this.values, this.#slots]) {
      const moved = part.to(device);
      if (moved === part) continue;
      keep(moved);
      if (part === this.values) this.values = makeParameter(moved, part.requiresGrad);
      else this.#slots = moved;
      part.dispose();
    }
  }

  dispose(): void {
    this.values.dispose();
    this.#slots.dispose();
  }
}

/** A layer with trained rows, which replaces `base`. */
export interface TokenLayer extends Module {
  readonly rows: TokenRows;
  readonly base: Embedding | Linear;
  /** Whether the rows belong to another layer that shares its weight with this one. */
  readonly tied: boolean;
}

const NAME = "token_adapter.trainable_tokens_delta";

/** Yields the parameters of a token layer that its base does not have. */
function* listOwnRows({ rows, tied }: TokenLayer): IterableIterator<[string, Tensor]> {
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
    return this.rows.overlayRows(super.forward(ids), ids);
  }

  override *ownParameters(): IterableIterator<[string, Tensor]> {
    yield* super.ownParameters();
    yield* listOwnRows(this);
  }

  override *ownState(): IterableIterator<[string, Tensor]> {
    yield ["weight", this.weight];
    yield* listOwnRows(this);
  }

  override to(device: Device): this {
    this.weight = this.#base.to(device).weight;
    this.rows.to(device);
    return this;
  }

  /** Disposes the rows only; the base owns the weight. */
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
    const weight = this.rows.overlayWeight(this.weight);
    return recordOp(() => session().linear(x.id, weight.id, this.bias?.id, false));
  }

  override *ownParameters(): IterableIterator<[string, Tensor]> {
    yield* super.ownParameters();
    yield* listOwnRows(this);
  }

  override *ownState(): IterableIterator<[string, Tensor]> {
    yield ["weight", this.weight];
    if (this.bias) yield ["bias", this.bias];
    yield* listOwnRows(this);
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

/** Returns the tensors of a token layer in an adapter's file. */
export function listTokenState({ rows, tied }: TokenLayer): Record<string, Tensor> {
  return tied ? {} : { [NAME]: rows.values };
}

/** Replaces the base's weight by a new tensor with the rows replaced, and returns the old weight. */
export function mergeTokens({ base, rows }: TokenLayer): Tensor {
  const { weight } = base;
  const merged = noGrad(() => scope(() => rows.overlayWeight(weight).to(weight.dtype)));
  base.weight = makeParameter(merged, false);
  return weight;
}
