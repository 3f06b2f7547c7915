/** The base class of pretrained models. */
import {
  checkFlag,
  checkList,
  checkChoice,
  checkKnownOptions,
  checkProbability,
  refuse,
} from "../arguments/check.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { unload } from "../lora/adapter/active.js";
import { Module } from "../nn/module.js";
import { checkpoint, scope } from "../tensor/scope.js";
import { checkTensor } from "../tensor/arguments.js";
import type { Tensor } from "../tensor/tensor.js";
import type { HeadLossOptions, LossReduction } from "./head-loss.js";
import type { CompanionFiles } from "./companion-files.js";
import type { Offload } from "./offload.js";
import { sumStream, type Stream } from "./stream.js";
import { checkInput, type TokenShape } from "./text-input.js";
import type { Tokenizer } from "./tokenizer.js";
import { Weights } from "./weights.js";

/** Options of `forward`. */
export interface ForwardOptions {
  /** i32 [B, T], 0 for padding. */
  attentionMask?: Tensor | undefined;
  /** i32 [B, T]: 0 for tokens of the first text, 1 for the second; for encoders. */
  tokenTypeIds?: Tensor | undefined;
  /**
   * i32 [B, T]: the position of each token, by default counted from 0 in each row. For a language model without an
   * `attentionMask`, a position that does not follow its predecessor starts a new text, as in transformers, and texts
   * packed into a row do not attend to each other. Set the first label of each text to −100, so that the end of one
   * text is not trained to predict the start of the next.
   */
  positionIds?: Tensor | undefined;
  /**
   * For a language model i32 [B, T], −100 where ignored, shifted internally; for a classifier i32 [B], or f32 [B, N]
   * for regression and multi-label classification.
   */
  labels?: Tensor | Int32Array | undefined;
  /** The share of each label that is spread over all classes, from 0 to 1; 0 by default. */
  labelSmoothing?: number | undefined;
  /** How the losses of the labels are reduced, `mean` by default; `none` returns them separately. */
  reduction?: LossReduction | undefined;
  /**
   * The adapter of each row of the batch, null for the base model. The mean loss is then the sum of each adapter's mean
   * over its rows.
   */
  adapterPerRow?: readonly (string | null)[] | undefined;
  /**
   * Floats [B, T, C] that replace the token embeddings; pass null as ids. Positions and token types are added to them
   * as to the model's embeddings, which `embedTokens` returns. Gradients flow into them.
   */
  inputsEmbeds?: Tensor | undefined;
  /** Whether to return `hiddenStates`; false. */
  outputHiddenStates?: boolean | undefined;
}

/** Options of `loss`. */
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
 * Checks the options of `forward`, except labels, and its input. `width` is the width C of embeddings in a text model.
 * Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
 */
export function checkForwardOptions(
  input: unknown,
  given: ForwardOptions | undefined,
  width?: number,
): ForwardOptions & HeadLossOptions {
  const known = checkKnownOptions("forward", given, FORWARD_OPTIONS);
  checkInput(input, known.inputsEmbeds, width);
  if (known.outputHiddenStates !== undefined)
    checkFlag("forward", "outputHiddenStates", known.outputHiddenStates);
  for (const name of TENSORS) if (known[name] !== undefined) checkTensor("forward", name, known[name]);
  return { ...known, ...checkLossOptions(known) };
}

/** Checks the options of a loss. Throws `ERR_OPTION`. */
export function checkLossOptions(
  known: Pick<ForwardOptions, "labelSmoothing" | "reduction" | "adapterPerRow">,
): HeadLossOptions & Pick<ForwardOptions, "adapterPerRow"> {
  if (known.adapterPerRow !== undefined)
    checkList("forward", "adapterPerRow", known.adapterPerRow, checkAdapterName);
  const { labelSmoothing = 0, reduction = "mean" } = known;
  return {
    adapterPerRow: known.adapterPerRow,
    labelSmoothing: checkProbability("forward", "labelSmoothing", labelSmoothing),
    reduction: checkChoice("forward", "reduction", reduction, ["mean", "sum", "none"]),
  };
}

function checkAdapterName(where: string, name: string, value: unknown): string | null {
  return value === null || typeof value === "string" ? value : refuse(where, name, "a name or null", value);
}

/** The output of a model; without a head there are no logits. */
export interface ModelOutput {
  /** [B, T, V] for a language model, computed on first access and then cached; [B, N] for a classifier. */
  readonly logits?: Tensor | undefined;
  /** With labels: the mean of their losses, or their reduction by `reduction`. */
  readonly loss?: Tensor | undefined;
  /** [B, T, C], after the last norm. */
  readonly hidden: Tensor;
  /**
   * With `outputHiddenStates`, as in transformers: the first block's input and each block's output, [B, T, C] each. The
   * last one is `hidden`, after the last norm, except for ViT, where it is the output before that norm.
   */
  readonly hiddenStates?: readonly Tensor[] | undefined;
}

/** The output of a model with a head. */
export interface ForwardOutput extends ModelOutput {
  /** [B, T, V] for a language model, computed on first access and then cached; [B, N] for a classifier. */
  readonly logits: Tensor;
}

/** The base class of pretrained models. */
export abstract class PretrainedModel extends Module {
  /** The fields of `config.json`, in camel case. */
  abstract readonly config: object;
  /** The tokenizer; undefined where the model came without one. */
  tokenizer: Tokenizer | undefined;
  /** Store only each block's input and recompute the block in backward. */
  gradientCheckpointing = false;
  /** The model's origin, for the adapter's configuration: a path, or a name at a hub. */
  source: string | undefined;
  /** The commit at the hub; undefined for a local model. */
  revision: string | undefined;
  /** The folder with companion files (such as the tokenizer's), which are copied on saving. */
  folder: string | undefined;
  /** @internal The weights that the host keeps; undefined without offloading. */
  offload: Offload | undefined;
  /** @internal The companion files of a model from a GGUF file. */
  companions: CompanionFiles | undefined;
  /** @internal The absolute path of the GGUF file; undefined for any other model. */
  ggufPath: string | undefined;
  /** The task in PEFT's terms, where PEFT has one. */
  abstract readonly taskType: string | undefined;

  /** @internal Throws `ERR_OPTION` where it is called without `Weights`, directly by a user. */
  constructor(weights: Weights) {
    super();
    if (!(weights instanceof Weights)) {
      throw new LowrankError(
        "ERR_OPTION",
        `new ${new.target.name}: a model is made by ${new.target.name}.fromConfig, or by loadModel`,
      );
    }
  }

  /** Runs the model on ids i32 [B, T], or null with `inputsEmbeds`; or on pixels f32 [B, channels, height, width]. */
  abstract override forward(input: Tensor | null, options?: ForwardOptions): ModelOutput;
  /** @internal Returns the configuration as fields of `config.json`, for a model that was not loaded from one. */
  abstract toHubConfig(): Record<string, unknown>;
  /** The device of the weights: `cpu`, `gpu:0`. */
  abstract get device(): Exclude<Device, "auto">;

  /** @internal Configuration fields that have changed since loading. */
  listConfigChanges(): Record<string, unknown> {
    return {};
  }

  /** Unloads the adapters first, so that the layers that they replace are freed with the rest. */
  override dispose(): void {
    unload(this);
    super.dispose();
  }

  /** @internal Returns the name of a tensor in a file, from its name in the state dict. */
  toFileName(name: string): string {
    return name;
  }
}

/**
 * Runs blocks in sequence. A block's intermediate tensors are freed, except its outputs and tensors saved for backward;
 * a checkpointed block stores only its input, as one tensor. The first block's input and each block's output are pushed
 * to `states`.
 */
export function runBlocks<B>(
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
        const sum = (): Tensor => sumStream(run(block, stream, i));
        const next = checkpointed ? checkpoint(sum) : scope(sum);
        states?.push(next);
        return { x: next };
      }
      const next = scope(() => run(block, stream, i));
      // The block has computed the sum, so the summand is no longer needed.
      stream.added?.dispose();
      return next;
    },
    { x },
  );
}

/** Replaces the last block's output by the output of the last norm. */
export function replaceLastState(states: Tensor[] | undefined, hidden: Tensor): Tensor {
  if (states !== undefined) {
    states.pop()?.dispose();
    states.push(hidden);
  }
  return hidden;
}

/** The length T of ids [B, T], which with the `before` of a cache fit the model. */
export function checkLength(ids: Pick<TokenShape, "shape">, before: number, limit: number): number {
  if (ids.shape.length !== 2) {
    throw new LowrankError("ERR_SHAPE_MISMATCH", `forward: ids are [B, T], not [${ids.shape.join(", ")}]`);
  }
  const T = ids.shape[1] as number;
  if (before + T > limit) {
    throw new LowrankError(
      "ERR_INDEX",
      `forward: ${before + T} tokens exceed the model's longest text of ${limit}`,
    );
  }
  return T;
}

/** @internal The error for a model that came without a tokenizer and is to read texts; `before` begins it. */
export function createNoTokenizerError(model: PretrainedModel, before = ""): LowrankError {
  const what =
    model.companions === undefined
      ? `${model.folder ?? "the model"}: the model has no tokenizer.json`
      : `${model.source ?? "the model"}: the file has no tokenizer (tokenizer.ggml.model); take one that has, or ` +
        "assign model.tokenizer";
  return new LowrankError("ERR_FILE_NOT_FOUND", before + what);
}
