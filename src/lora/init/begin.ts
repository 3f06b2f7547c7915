import { session } from "../../native/binding.js";
import { keep, noGrad, scope } from "../../tensor/scope.js";
import { recordOp, type Tensor } from "../../tensor/tensor.js";
import type { Adapter, AnyLoRALayer } from "../layers/layer.js";
import { drawAll, drawGaussian, write } from "./drawn.js";
import type { InitLoraWeights } from "../options/init-weights.js";
import type { Start } from "./start.js";

/** Initialises a new adapter of `layer`. */
export function initialise(
  layer: AnyLoRALayer,
  adapter: Adapter,
  init: InitLoraWeights,
  start: Start | undefined,
): void {
  if (start?.loraA !== undefined) write(adapter.loraA, start.loraA);
  if (start?.loraB !== undefined) write(adapter.loraB, start.loraB);
  if (start?.movesBase) adapter.start = copyAsStart(adapter);
  if (init === "gaussian") drawGaussian(layer, adapter);
  if (init === false) drawAll(layer, adapter);
  const { magnitude } = adapter;
  if (magnitude !== undefined) noGrad(() => scope(() => magnitude.copy(layer.createMagnitude(adapter))));
}

/** Copies the current A and B of an adapter as its start. */
export function copyAsStart({ loraA, loraB }: Adapter): NonNullable<Adapter["start"]> {
  return { loraA: copyTensor(loraA), loraB: copyTensor(loraB) };
}

function copyTensor(tensor: Tensor): Tensor {
  const copy = noGrad(() => recordOp(() => session().unary("copy", tensor.id)));
  keep(copy);
  return copy;
}
