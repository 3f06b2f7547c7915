/** The output of a language model's forward, with logits computed on first access. */
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import type { Module } from "../nn/module.js";
import { runEvaluating, captureFrame, scope, isTraining } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ForwardOutput } from "./pretrained.js";

/** An output without its logits. */
type OutputParts<Output> = Omit<Output, "logits">;

type Head = Module & { weight: Tensor; active?: readonly unknown[] | undefined };

/**
 * An output with `hidden` and `loss`. Reading `logits` computes them from `hidden`, in the mode of the forward call and
 * in the innermost scope around it that is still open, and makes them an enumerable property. Until then, enumerating,
 * spreading or printing the output computes nothing.
 */
class CausalOutput implements ForwardOutput {
  declare readonly hidden: Tensor;
  declare readonly loss?: Tensor | undefined;
  declare readonly hiddenStates?: readonly Tensor[] | undefined;
  readonly #make: () => Tensor;

  constructor(parts: OutputParts<ForwardOutput>, make: () => Tensor) {
    const present = Object.entries(parts).filter(([, value]) => value !== undefined);
    Object.assign(this, Object.fromEntries(present));
    this.#make = make;
  }

  get logits(): Tensor {
    const value = this.#make();
    Object.defineProperty(this, "logits", { value, enumerable: true });
    return value;
  }
}

/**
 * Creates an output whose logits `make` computes from `hidden` through `head`. Reading them throws `ERR_DISPOSED` where
 * `hidden` is disposed of, and `ERR_MODIFIED` where the head has changed.
 */
export function createCausalOutput<Output extends ForwardOutput>(
  head: Head,
  parts: OutputParts<Output>,
  make: () => Tensor,
): Output {
  const { hidden } = parts;
  const resume = captureFrame();
  const before = describeState(head);
  const evaluated = !isTraining(head);
  const logits = (): Tensor => {
    if (hidden.disposed) {
      throw new LowrankError(
        "ERR_DISPOSED",
        "logits: the hidden states that they are made from are disposed of; read logits in the scope that forward " +
          "was called in, or return the output from it",
      );
    }
    if (head.weight.disposed || describeState(head) !== before) {
      throw new LowrankError(
        "ERR_MODIFIED",
        "logits: the head has changed since forward (a step of an optimizer, a merge, another adapter); read logits " +
          "before that, or call forward again",
      );
    }
    return resume(() => scope(() => (evaluated ? runEvaluating(make) : make())));
  };
  return new CausalOutput(parts, logits) as ForwardOutput as Output;
}

/** A key that changes whenever the head would compute other logits. */
function describeState(head: Head): string {
  const tensors = [head.weight, ...head.parameters()];
  const versions = tensors.map(({ id }) => `${id}:${session().version(id)}`);
  return `${versions.join()} ${JSON.stringify(head.active ?? null)}`;
}
