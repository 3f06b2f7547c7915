/** What every causal language model offers, whatever its family. */
import { tensor } from "../create.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { lossPerAdapter, perRow } from "../lora/per-row.js";
import { session } from "../native.js";
import { Embedding } from "../nn/embedding.js";
import { Linear } from "../nn/linear.js";
import { made, type Tensor } from "../tensor.js";
import type { KeyValueCache } from "./cache.js";
import type { GenerateOptions } from "./generate-options.js";
import { generate, type Piece, type Prompt } from "./generate.js";
import { type ForwardOptions, type ForwardOutput, PretrainedModel } from "./pretrained.js";
import type { Weights } from "./weights.js";

/** What generation and training ask of a family's configuration. */
export interface CausalConfig {
  /** The family, as `model_type` names it. */
  modelType: string;
  vocabSize: number;
  maxPositionEmbeddings: number;
  eosTokenIds: readonly number[];
  bosTokenId: number | undefined;
}

export abstract class CausalLM extends PretrainedModel {
  abstract override readonly config: CausalConfig & Record<string, unknown>;
  abstract lm_head: Linear;
  readonly taskType = "CAUSAL_LM";
  readonly outputHead = "lm_head";

  /** ids i32 [B, T] → [B, T, C], after the last norm. */
  abstract hidden(ids: Tensor, options?: ForwardOptions, cache?: KeyValueCache): Tensor;
  abstract inputEmbedding(): Embedding;
  abstract newCache(batch: number, capacity: number): KeyValueCache;

  get device(): Exclude<Device, "auto"> {
    return this.inputEmbedding().weight.device;
  }

  override configChanges(): Record<string, unknown> {
    // A head or an embedding that was trained alone is tied no more.
    return { tie_word_embeddings: this.lm_head.weight === this.inputEmbedding().weight };
  }

  /** ids i32 [B, T] → logits [B, T, V], and the loss where labels are given. */
  override forward(ids: Tensor, options: ForwardOptions = {}): ForwardOutput {
    const { labels, adapterPerRow: names } = options;
    const { hidden, logits } = perRow(this, ids.shape[0] as number, names, () => {
      const states = this.hidden(ids, options);
      return { hidden: states, logits: this.lm_head.forward(states) };
    });
    if (labels === undefined) return { logits, hidden };
    const targets = shiftedLabels(ids, labels);
    const rows = logits.reshape(-1, logits.shape[2] as number);
    if (names === undefined) return { logits, loss: rows.crossEntropy(targets), hidden };
    const losses = rows.crossEntropy(targets, { reduction: "none" }).reshape(ids.shape);
    const counted = targets.eq(-100).to("f32").neg().add(1).reshape(ids.shape);
    return { logits, loss: lossPerAdapter(losses, counted, names), hidden };
  }

  /**
   * The sum of the loss over the labels that count, times `scale`, without the logits existing
   * whole where the head is frozen. `labels` are the host's, of ids' shape, shifted by one inside.
   */
  lossSum(ids: Tensor, labels: Int32Array, scale: number, labelSmoothing = 0): Tensor {
    const hidden = this.hidden(ids);
    const [B, T, C] = hidden.shape as [number, number, number];
    const targets = tensor(shifted(labels, B, T), { shape: [B * T], device: this.device });
    const rows = hidden.reshape(B * T, C);
    const head = this.lm_head;
    const plain = head.constructor === Linear && head.bias === null && !head.weight.requiresGrad;
    if (plain && labelSmoothing === 0) {
      return made(() => session().headLoss(rows.id, head.weight.id, targets.id, -100)).mul(scale);
    }
    return head.forward(rows).crossEntropy(targets, { reduction: "sum", labelSmoothing }).mul(scale);
  }

  /** Yields the pieces that come after `prompt`, as they are decoded, without the end token. */
  generate(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<Piece, void, void> {
    return generate(this, prompt, options);
  }
}

/** The output head, without a bias: the embedding's own weight where the two are tied. */
export function languageHead(embedding: Embedding, tied: boolean, weights: Weights): Linear {
  const { numEmbeddings: V, embeddingDim: C, weight } = embedding;
  return tied ? new Linear(C, V, { bias: false, weight }) : weights.linear("lm_head", C, V, false);
}

/** Labels moved one to the left, the last of each row ignored: position t is trained on t + 1. */
export function shifted(labels: Int32Array, B: number, T: number): Int32Array {
  const out = new Int32Array(B * T).fill(-100);
  for (let b = 0; b < B; b++) out.set(labels.subarray(b * T + 1, (b + 1) * T), b * T);
  return out;
}

function shiftedLabels(ids: Tensor, labels: Tensor): Tensor {
  if (labels.shape.join() !== ids.shape.join() || ids.shape.length !== 2) {
    throw new LowrankError(
      "ERR_SHAPE_MISMATCH",
      `forward: labels are [${labels.shape.join(", ")}], ids [${ids.shape.join(", ")}]; both are [B, T]`,
    );
  }
  const [B, T] = ids.shape as [number, number];
  const ignored = tensor(new Int32Array(B).fill(-100), { shape: [B, 1], device: labels.device });
  return labels
    .slice(1, 1, T)
    .concat(ignored, 1)
    .reshape(B * T);
}
