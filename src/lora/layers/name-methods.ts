/** The methods of low-rank layers that name the parameters of adapters. */
import type { AdapterPart } from "./adapter.js";
import type { AnyLoRALayer, LowRank } from "./any-layer.js";

/** Names in the style of loralib, which itself has only A and B. */
const PLAIN_NAMES = { A: "lora_A", B: "lora_B", bias: "lora_B_bias", magnitude: "lora_magnitude_vector" };

export const nameMethods = {
  /** @internal */
  get namedByAdapter(): boolean {
    return !(this.byHand && this.adapters.size === 1 && this.adapters.has("default"));
  },

  /** @internal */
  formatParameterName(adapter: string, part: AdapterPart): string {
    return this.namedByAdapter ? this.nameInMemory(adapter, part) : PLAIN_NAMES[part];
  },

  /** @internal */
  nameInMemory(adapter: string, part: AdapterPart): string {
    if (part === "magnitude") return `lora_magnitude_vector.${adapter}.weight`;
    return part === "bias" ? `lora_B.${adapter}.bias` : `lora_${part}.${adapter}.weight`;
  },

  /** @internal */
  nameOnDisk(part: AdapterPart): string {
    if (part === "magnitude") return "lora_magnitude_vector";
    return part === "bias" ? "lora_B.bias" : `lora_${part}.weight`;
  },
} satisfies Partial<LowRank> & ThisType<AnyLoRALayer>;
