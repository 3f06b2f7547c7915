import { LowrankError } from "../errors.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ConfigFields } from "./config-fields.js";

const computeTanhGelu = (x: Tensor): Tensor => x.gelu({ approximate: "tanh" });

/** Activations by transformers' names. */
const ACTIVATIONS: Record<ActivationName, (x: Tensor) => Tensor> = {
  gelu: (x) => x.gelu(),
  gelu_new: computeTanhGelu,
  gelu_fast: computeTanhGelu,
  gelu_pytorch_tanh: computeTanhGelu,
  quick_gelu: (x) => x.mul(x.mul(1.702).sigmoid()),
  relu: (x) => x.relu(),
  silu: (x) => x.silu(),
  swish: (x) => x.silu(),
  tanh: (x) => x.tanh(),
};

/** The name of an activation in transformers. */
export type ActivationName =
  "gelu" | "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "quick_gelu" | "relu" | "silu" | "swish" | "tanh";

export function activate(name: ActivationName, x: Tensor): Tensor {
  return ACTIVATIONS[name](x);
}

/** Returns the activation named by `key`, or `otherwise`. Throws `ERR_UNSUPPORTED_MODEL`. */
export function readActivation(config: ConfigFields, key: string, otherwise: ActivationName): ActivationName {
  const name = config.readString(key) ?? otherwise;
  if (name in ACTIVATIONS) return name as ActivationName;
  const supported = Object.keys(ACTIVATIONS).join(", ");
  throw new LowrankError(
    "ERR_UNSUPPORTED_MODEL",
    `${config.file}: ${key} "${name}" is not supported; supported are ${supported}`,
  );
}
