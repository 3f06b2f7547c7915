/** What every pretrained model is, whatever its family and task. */
import { flag, listOf, oneOf, options, probability, refuse } from "../argument.js";
import type { Device } from "../device.js";
import { LowrankError } from "../errors.js";
import { unload } from "../lora/adapter/active.js";
import { Module } from "../nn/module.js";
import { checkpoint, scope } from "../scope.js";
import { tensorOf } from "../tensor/arguments.js";
import type { Tensor } from "../tensor.js";
import type { HeadLossOptions, LossReduction } from "./head-loss.js";
import type { Beside } from "./beside.js";
import { joined, type Stream } from "./stream.js";
import { checkInput, type Places } from "./text-input.js";
import type { Tokenizer } from "./tokenizer.js";
import { Weights } from "./weights.js";

/** What `forward` takes besides its input. */
export interface ForwardOptions {
  /** i32 [B, T], 0 where a token is padding. */
  attentionMask?: Tensor | undefined;
  /** i32 [B, T]: which of two texts a token is of, for encoders. */
  tokenTypeIds?: Tensor | undefined;
  /**
   * i32 [B, T]: the position of each token, from 0; counted through each row unless given. A language model that is given
   * positions and no `attentionMask` takes one that does not follow the position before it for the first of another text,
   * as transformers does: texts that share a row don't see each other. What ends a text is not trained to say how the next
   * begins where the first label of each is −100.
   */
  positionIds?: Tensor | undefined;
  /**
   * For a language model i32 [B, T], −100 where ignored, shifted by one inside; for a classifier
   * i32 [B], or f32 [B, N] where several labels may hold or values are predicted.
   */
  labels?: Tensor | Int32Array | undefined;
  /** Share of each label that is spread over all classes, from 0 to 1; 0 unless given. */
  labelSmoothing?: number | undefined;
  /** How the losses of the labels become one, `mean` unless given; `none` leaves them apart. */
  reduction?: LossReduction | undefined;
  /**
   * The adapter of each row of the batch, null for the base alone. The mean loss is then the sum of
   * each adapter's mean over its own rows.
   */
  adapterPerRow?: readonly (string | null)[] | undefined;
  /**
   * Floats [B, T, C] that replace the token embeddings; ids are null then. Positions and token types are added to them as
   * to the embeddings of the model, which `embedTokens` returns. A gradient flows into them.
   */
  inputsEmbeds?: Tensor | undefined;
  /** Whether the output has `hiddenStates`; false. */
  outputHiddenStates?: boolean | undefined;
}

/** What `loss` takes besides its input and labels. */
export type LossOptions = Omit<ForwardOptions, "labels">;

const TENSORS = ["attentionMask", "tokenTypeIds", "positionIds"] as const;
const FORWARD_OPTIONS = [
  ...TENSORS,
  "labels",
  "labelSmoothing",
  "reduction",
  "adapterPerRow",
  "inputsEmbeds",
  "outputHiddenStates",
] as const;

/**
 * The options of `forward`, checked but for its labels, and whether its input fits them. `width` is C of the embeddings
 * that a model of texts takes. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
 */
export function forwardOptions(
  input: unknown,
  given: ForwardOptions | undefined,
  width?: number,
): ForwardOptions & HeadLossOptions {
  const known = options("forward", given, FORWARD_OPTIONS);
  checkInput(input, known.inputsEmbeds, width);
  if (known.outputHiddenStates !== undefined) flag("forward", "outputHiddenStates", known.outputHiddenStates);
  for (const name of TENSORS) if (known[name] !== undefined) tensorOf("forward", name, known[name]);
  return { ...known, ...lossOptions(known) };
}

/** What becomes of the losses, and whose adapters make them, checked. Throws `ERR_OPTION`. */
export function lossOptions(
  known: Pick<ForwardOptions, "labelSmoothing" | "reduction" | "adapterPerRow">,
): HeadLossOptions & Pick<ForwardOptions, "adapterPerRow"> {
  if (known.adapterPerRow !== undefined) listOf("forward", "adapterPerRow", known.adapterPerRow, adapterName);
  const { labelSmoothing = 0, reduction = "mean" } = known;
  return {
    adapterPerRow: known.adapterPerRow,
    labelSmoothing: probability("forward", "labelSmoothing", labelSmoothing),
    reduction: oneOf("forward", "reduction", reduction, ["mean", "sum", "none"]),
  };
}

function adapterName(where: string, name: string, value: unknown): string | null {
  return value === null || typeof value === "string" ? value : refuse(where, name, "a name or null", value);
}

/** What any model gives; one without a head gives no logits. */
export interface ModelOutput {
  /** [B, T, V] of a language model, made when first read, and the same tensor from then on; [B, N] of a classifier. */
  readonly logits?: Tensor | undefined;
  /** Where labels were given: the mean over labels that count, or what `reduction` makes of their losses. */
  readonly loss?: Tensor | undefined;
  /** [B, T, C], after the last norm. */
  readonly hidden: Tensor;
  /**
   * With `outputHiddenStates`, as in transformers: the first block's input and each block's output, [B, T, C] each. The
   * last is `hidden`, after the last norm; for ViT it is the output before that norm.
   */
  readonly hiddenStates?: readonly Tensor[] | undefined;
}

/** What a model with a head gives. */
export interface ForwardOutput extends ModelOutput {
  /**
   * [B, T, V] of a language model, made when first read, and the same tensor from then on; [B, N] of a classifier.
   */
  readonly logits: Tensor;
}

/** What every pretrained model is, whatever its family and task. */
export abstract class PretrainedModel extends Module {
  /** What `config.json` says, in one spelling. */
  abstract readonly config: object;
  /** Its tokenizer; undefined where it came without one. */
  tokenizer: Tokenizer | undefined;
  /** Keep only what enters each block and run it again in backward. */
  gradientCheckpointing = false;
  /** Where the model came from, for the adapter's configuration: a path, or its name at a hub. */
  source: string | undefined;
  /** The commit at the hub that it is of; undefined for any other. */
  revision: string | undefined;
  /** The folder whose companions (tokenizer and the like) go along when it is saved. */
  folder: string | undefined;
  /** @internal What stands for these companions where the model came from one file that holds everything. */
  beside: Beside | undefined;
  /** @internal The absolute path of the GGUF file that it was loaded from; undefined for any other model. */
  ggufPath: string | undefined;
  /** The task as PEFT names it, where it does. */
  abstract readonly taskType: string | undefined;

  /** @internal A family's class builds itself of `weights`. */
  constructor(weights: Weights) {
    super();
    if (!(weights instanceof Weights)) {
      throw new LowrankError(
        "ERR_OPTION",
        `new ${new.target.name}: a model is made by ${new.target.name}.fromConfig, or by loadModel`,
      );
    }
  }

  /** Takes ids i32 [B, T], or null with `inputsEmbeds`; or pixels f32 [B, channels, height, width]. */
  abstract override forward(input: Tensor | null, options?: ForwardOptions): ModelOutput;
  /** @internal The configuration as `config.json` has it, for a model that came from none. */
  abstract hubConfig(): Record<string, unknown>;
  /** Where its weights are: `cpu`, `gpu:0`. */
  abstract get device(): Exclude<Device, "auto">;

  /** @internal What of the configuration has changed since it was read. */
  configChanges(): Record<string, unknown> {
    return {};
  }

  /** Its adapters go first: what they stand for is freed with the rest. */
  override dispose(): void {
    unload(this);
    super.dispose();
  }

  /** @internal A tensor's name in a file, by its name in the state dict. */
  fileName(name: string): string {
    return name;
  }
}

/**
 * Runs blocks one after the other. What a block makes goes with it, but for what it returns and what backward reads; a
 * block of a checkpoint keeps only what enters it, which is one tensor. `states` collects the first block's input and
 * each block's output.
 */
export function chain<B>(
  blocks: readonly B[],
  x: Tensor,
  checkpointed: boolean,
  run: (block: B, stream: Stream, index: number) => Stream,
  states?: Tensor[],
): Stream {
  states?.push(x);
  return blocks.reduce(
    (stream: Stream, block, i) => {
      if (checkpointed || states !== undefined) {
        const sum = (): Tensor => joined(run(block, stream, i));
        const next = checkpointed ? checkpoint(sum) : scope(sum);
        states?.push(next);
        return { x: next };
      }
      const next = scope(() => run(block, stream, i));
      // The sum that it is part of is made.
      stream.added?.dispose();
      return next;
    },
    { x },
  );
}

/** Replaces the last block's output by the output of the last norm. */
export function endStates(states: Tensor[] | undefined, hidden: Tensor): Tensor {
  if (states !== undefined) {
    states.pop()?.dispose();
    states.push(hidden);
  }
  return hidden;
}

/** The length T of ids [B, T], which with the `before` of a cache fit the model. */
export function checkedLength(ids: Pick<Places, "shape">, before: number, limit: number): number {
  if (ids.shape.length !== 2) {
    throw new LowrankError("ERR_SHAPE_MISMATCH", `forward: ids are [B, T], not [${ids.shape.join(", ")}]`);
  }
  const T = ids.shape[1] as number;
  if (before + T > limit) {
    throw new LowrankError(
      "ERR_INDEX",
      `forward: ${before + T} tokens are more than the model's longest text, ${limit}`,
    );
  }
  return T;
}

/** @internal The error for a model that came without a tokenizer and is to read texts; `before` begins it. */
export function noTokenizer(model: PretrainedModel, before = ""): LowrankError {
  const what =
    model.beside === undefined
      ? `${model.folder ?? "the model"}: the model has no tokenizer.json`
      : `${model.source ?? "the model"}: the file has no tokenizer (tokenizer.ggml.model); take one that has, or ` +
        "assign model.tokenizer";
  return new LowrankError("ERR_FILE_NOT_FOUND", before + what);
}
