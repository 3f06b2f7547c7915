import { checkFlag, checkKnownOptions, checkProbability, checkWhole } from "../arguments/check.js";
import { tensor, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { drawUniformValues } from "../tensor/random.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { scope, isTraining } from "../tensor/scope.js";
import { scaledDotProductAttention } from "./attention.js";
import { checkInput, refuseMismatch } from "./inputs.js";
import { Linear } from "./linear.js";
import { Module } from "./module.js";

/** The options of `MultiheadAttention`. */
export interface MultiheadAttentionOptions {
  /** The probability with which an attention weight is dropped in training; 0 by default. */
  dropout?: number | undefined;
  /** Whether projections have biases; true by default. */
  bias?: boolean | undefined;
  /** Whether tensors are [B, T, C] instead of [T, B, C]; false by default. */
  batchFirst?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
}

/** The visibility of keys. */
export interface AttendOptions {
  /** Whether a query sees no key after its own position; false by default. */
  isCausal?: boolean | undefined;
  /** i32 [B, S], 0 where a key is hidden. */
  keyMask?: Tensor | undefined;
}

/**
 * Multi-head attention with projections (Vaswani et al. 2017). Shapes: query [T, B, C], key and value [S, B, C] (the
 * batch first under `batchFirst`, or no batch), y as query. in_proj_weight [3C, C] contains the projections of query,
 * key and value. As in PyTorch, it starts as U(±√(6 / 4C)), and biases as 0. Scores are stored only with dropout, and
 * are not returned; otherwise as `torch.nn.MultiheadAttention`.
 */
export class MultiheadAttention extends Module {
  /** Features of the input and the output. */
  readonly embedDim: number;
  /** Heads that features are split into. */
  readonly numHeads: number;
  /** The probability with which an attention weight is dropped in training. */
  readonly dropout: number;
  /** Whether the batch is the first dimension. */
  readonly batchFirst: boolean;
  /** The projections of query, key and value, [3C, C]. */
  in_proj_weight: Tensor;
  /** Their biases, [3C]; null if there is none. */
  in_proj_bias: Tensor | null;
  /** The output projection, a layer of C by C. */
  out_proj: Linear;

  /**
   * Over C = `embedDim` features in `numHeads` heads. Throws `ERR_OPTION`; `ERR_SHAPE_MISMATCH` for heads that do not
   * divide them.
   */
  constructor(embedDim: number, numHeads: number, given?: MultiheadAttentionOptions) {
    super();
    const layer = "MultiheadAttention";
    const known = ["dropout", "bias", "batchFirst", "device"] as const;
    const { dropout = 0, bias = true, batchFirst = false, device } = checkKnownOptions(layer, given, known);
    checkWhole(layer, "embedDim", embedDim, 1);
    checkWhole(layer, "numHeads", numHeads, 1);
    checkFlag(layer, "bias", bias);
    checkFlag(layer, "batchFirst", batchFirst);
    if (embedDim % numHeads !== 0) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `MultiheadAttention: ${numHeads} heads do not divide ${embedDim} features evenly`,
      );
    }
    this.embedDim = embedDim;
    this.numHeads = numHeads;
    this.dropout = checkProbability(layer, "dropout", dropout);
    this.batchFirst = batchFirst;
    const bound = Math.sqrt(6 / (4 * embedDim));
    const values = drawUniformValues(3 * embedDim * embedDim, -bound, bound);
    this.in_proj_weight = makeParameter(tensor(values, { shape: [3 * embedDim, embedDim], device }));
    this.in_proj_bias = bias ? makeParameter(zeros([3 * embedDim], { device })) : null;
    this.out_proj = new Linear(embedDim, embedDim, { bias, device });
    this.out_proj.bias?.copy(zeros([embedDim], { device }));
  }

  /**
   * Attention of `query` to `key` and `value`; by default the key is the query, and the value is the key. Shapes: query
   * and y [T, B, C], key and value [S, B, C]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`.
   */
  forward(query: Tensor, key = query, value = key, given: AttendOptions = {}): Tensor {
    const layer = "MultiheadAttention";
    const { isCausal = false, keyMask } = checkKnownOptions(layer, given, ["isCausal", "keyMask"]);
    checkFlag(layer, "isCausal", isCausal);
    if (keyMask !== undefined) checkInput(layer, keyMask, "keyMask");
    for (const [name, x] of Object.entries({ query, key, value })) {
      const { length } = checkInput(layer, x, name).shape;
      if (length < 2 || length > 3 || length !== query.shape.length || x.shape.at(-1) !== this.embedDim)
        refuseMismatch(
          `${layer}: ${name}`,
          `[T, B, ${this.embedDim}] or [T, ${this.embedDim}], the query's dimensions`,
          x,
        );
    }
    if (query.shape.length === 2) {
      const batch = this.batchFirst ? 0 : 1;
      // Equal inputs stay one tensor, and are projected together.
      const q = query.unsqueeze(batch);
      const k = key === query ? q : key.unsqueeze(batch);
      const v = value === query ? q : value === key ? k : value.unsqueeze(batch);
      return this.forward(q, k, v, given).squeeze(batch);
    }
    const heads = projectInputs(this, query, key, value).map((x) => splitHeads(this, x)) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const y = attend(this, heads, isCausal, keyMask);
    return this.out_proj.forward(this.batchFirst ? y : y.transpose(0, 1));
  }
}

// Functions instead of private methods: a copy of a module (lora/inject/modules-to-save.ts) would not have those.

/** The projections of query, key and value, each by its part of the weight. */
function projectInputs(layer: MultiheadAttention, query: Tensor, key: Tensor, value: Tensor): Tensor[] {
  const C = layer.embedDim;
  const [weight, bias] = [layer.in_proj_weight, layer.in_proj_bias];
  if (key === query && value === query) {
    const all = recordOp(() => session().linear(query.id, weight.id, bias?.id, false));
    return all.split(C, -1);
  }
  return [query, key, value].map((x, i) => {
    const part = weight.slice(0, i * C, (i + 1) * C);
    const shift = bias?.slice(0, i * C, (i + 1) * C);
    return recordOp(() => session().linear(x.id, part.id, shift?.id, false));
  });
}

/** A tensor in the layout of the inputs, as [B, T, H, D]. */
function splitHeads({ batchFirst, numHeads }: MultiheadAttention, x: Tensor): Tensor {
  const batched = batchFirst ? x : x.transpose(0, 1);
  const [B, T, C] = batched.shape as [number, number, number];
  return batched.reshape(B, T, numHeads, C / numHeads);
}

/** Attention of q [B, T, H, D] to k and v [B, S, H, D], as [B, T, C]. */
function attend(
  layer: MultiheadAttention,
  [q, k, v]: readonly [Tensor, Tensor, Tensor],
  causal: boolean,
  keyMask: Tensor | undefined,
): Tensor {
  const [B, T, H, D] = q.shape as [number, number, number, number];
  const S = k.shape[1] as number;
  if (layer.dropout === 0 || !isTraining(layer)) {
    const scale = 1 / Math.sqrt(D);
    return recordOp(() => session().attention(q.id, k.id, v.id, keyMask?.id, causal, 0, scale, 0, S)).reshape(
      B,
      T,
      H * D,
    );
  }
  return scope(() => {
    const [queries, keys, values] = [q, k, v].map((x) => x.transpose(1, 2)) as [Tensor, Tensor, Tensor];
    const mask = keyMask?.slice(1, 0, S).reshape(B, 1, 1, S);
    const { dropout } = layer;
    const y = scaledDotProductAttention(queries, keys, values, { mask, causal, dropout });
    return y.transpose(1, 2).reshape(B, T, H * D);
  });
}
