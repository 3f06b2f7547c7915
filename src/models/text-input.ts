/** The input of a text model: token ids, or embeddings instead. */
import { refuse } from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { checkTensor } from "../tensor/arguments.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";

/** The shape [B, T], size and device of a batch of tokens. */
export type TokenShape = Pick<Tensor, "shape" | "size" | "device">;

/** Returns the shape [B, T] and device of ids, or of embeddings [B, T, C] given instead. */
export function readTokenShape(
  ids: Tensor | null,
  { inputsEmbeds }: { inputsEmbeds?: Tensor | undefined },
): TokenShape {
  if (inputsEmbeds === undefined) return ids as Tensor;
  const [B, T] = inputsEmbeds.shape as [number, number];
  return { shape: [B, T], size: B * T, device: inputsEmbeds.device };
}

/**
 * Checks that a text model gets either ids or embeddings [B, T, `width`]; a model of other inputs has no width and
 * takes no embeddings. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`.
 */
export function checkInput(input: unknown, inputsEmbeds: unknown, width: number | undefined): void {
  if (inputsEmbeds === undefined) {
    if (width !== undefined && (input === null || input === undefined))
      refuse("forward", "its input", "a tensor of token ids, or null where inputsEmbeds is given", input);
    checkTensor("forward", "its input", input);
    return;
  }
  if (width === undefined)
    throw createInputError("inputsEmbeds stands for token ids, which this model does not take");
  if (!isTensor(inputsEmbeds)) refuse("forward", "inputsEmbeds", "a tensor", inputsEmbeds);
  if (input !== null && input !== undefined)
    throw createInputError("takes token ids or inputsEmbeds, not both; pass null as ids");
  const { shape, dtype } = inputsEmbeds;
  if (dtype === "i32") throw new LowrankError("ERR_DTYPE", "forward: inputsEmbeds are floats, not i32");
  if (shape.length === 3 && shape[2] === width) return;
  throw new LowrankError(
    "ERR_SHAPE_MISMATCH",
    `forward: inputsEmbeds are [${shape.join(", ")}]; this model takes [B, T, ${width}]`,
  );
}

function createInputError(what: string): LowrankError {
  return new LowrankError("ERR_OPTION", `forward: ${what}`);
}
