/** Random initialisations. Source: PEFT's reset_lora_parameters. */
import { tensor } from "../../tensor/create.js";
import { Embedding } from "../../nn/embedding.js";
import { drawNormalValues, drawUniformValues } from "../../tensor/random.js";
import { noGrad, scope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Adapter, AnyLoRALayer } from "../layers/layer.js";

/** Draws A from N(0, 1/r²). An embedding keeps its usual start: A zero, B random. */
export function drawGaussian(layer: AnyLoRALayer, { loraA, r }: Adapter): void {
  if (layer instanceof Embedding) return;
  write(
    loraA,
    drawNormalValues(loraA.size).map((value) => value / r),
  );
}

/** Also draws the tensors that are usually zero, from the distributions of PyTorch's layers. */
export function drawAll(layer: AnyLoRALayer, { loraA, loraB, loraBias, r }: Adapter): void {
  if (layer instanceof Embedding) {
    write(loraA, drawNormalValues(loraA.size));
    return;
  }
  const bound = 1 / Math.sqrt(loraB.size / (loraB.shape[0] as number));
  write(loraB, drawUniformValues(loraB.size, -bound, bound));
  if (loraBias !== undefined)
    write(loraBias, drawUniformValues(loraBias.size, -1 / Math.sqrt(r), 1 / Math.sqrt(r)));
}

/** Copies host values into a tensor. */
export function write(to: Tensor, values: Float32Array): void {
  noGrad(() => scope(() => to.copy(tensor(values, { shape: to.shape, device: to.device }))));
}
