/**
 * Initialisations that read no weight, over quantised weights: they and their training equal those over the
 * dequantised copy.
 */
import { join } from "node:path";

import test from "ava";
import {
  LlamaForCausalLM,
  loadModel,
  lora,
  manualSeed,
  saveModel,
  tensor,
  type CausalLM,
} from "../../src/index.js";
import { testDevices } from "../devices.js";
import { temporary } from "../hashed.js";
import { error } from "../parity/goldens.js";
import { stepLosses } from "./trained.js";

const KINDS = ["q8_0", "q4_0", "q4_k", "nf4"] as const;

const CONFIG = {
  vocab_size: 61,
  hidden_size: 256,
  intermediate_size: 512,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  eos_token_id: 0,
};
const IDS = Int32Array.from({ length: 3 * 17 }, (_, i) => (i * i * 31 + 7) % CONFIG.vocab_size);
const TARGETS = { r: 4, loraAlpha: 8, targetModules: "all-linear" } as const;

/** Returns the folders of a model and of its dequantised copy. */
async function folders(quantize: (typeof KINDS)[number]): Promise<[string, string]> {
  manualSeed(5);
  const model = LlamaForCausalLM.fromConfig(CONFIG, { device: "cpu" });
  const [own, unpacked] = [join(temporary(), "own"), join(temporary(), "unpacked")];
  await saveModel(model, own);
  model.dispose();
  const quantised = await loadModel<"causal-lm">(own, { device: "cpu", quantize });
  await saveModel(quantised, unpacked, { dtype: "f32" });
  quantised.dispose();
  return [own, unpacked];
}

/** Returns the initial A and B of each layer, and five losses. */
async function started(model: CausalLM, more: lora.InjectOptions) {
  manualSeed(1);
  await lora.inject(model, { ...TARGETS, ...more });
  const factors = new Map<string, Float32Array>();
  for (const [name, tensor] of model.namedParameters())
    if (name.includes("lora_")) factors.set(name, (await tensor.data()) as Float32Array);
  model.train();
  return {
    factors,
    losses: await stepLosses(
      model,
      () => model.loss(tensor(IDS, { shape: [3, 17], device: model.device }), IDS),
      { steps: 5, lr: 1e-2 },
    ),
  };
}

for (const device of testDevices()) {
  // Other tests cover how a GPU reads each kind; here two kinds suffice for the combination with initialisations.
  for (const kind of device === "cpu" ? KINDS : (["q4_0", "nf4"] as const)) {
    for (const init of ["eva", "orthogonal"] as const) {
      // Serial: both draw from the process's seed.
      test.serial(
        `${device}: initialising with ${init} over ${kind} equals that over the dequantised weights`,
        async (t) => {
          const [own, unpacked] = await folders(kind);
          const [quantised, wide] = await Promise.all([
            loadModel<"causal-lm">(own, { device, quantize: kind }),
            loadModel<"causal-lm">(unpacked, { device }),
          ]);
          const batch = (): lora.InjectOptions => ({
            initLoraWeights: init,
            ...(init === "eva" && { evaData: [tensor(IDS, { shape: [3, 17], device })] }),
          });
          const [a, b] = [await started(quantised, batch()), await started(wide, batch())];
          t.is(a.factors.size, 2 * 14);
          t.deepEqual([...a.factors.keys()], [...b.factors.keys()]);
          // The processor uses one order of summation; on a GPU EVA's components depend on inputs with other
          // rounding.
          const tolerance = device === "cpu" || init === "orthogonal" ? 0 : 1e-3;
          for (const [name, factor] of a.factors) {
            const off = error(factor, b.factors.get(name) as Float32Array);
            t.true(off <= tolerance, `${name}: ${off}`);
          }
          const sizes = [...a.factors.values()].map((one) => one.some((x) => x !== 0));
          t.true(sizes.filter(Boolean).length >= 14);
          for (const [i, loss] of a.losses.entries()) {
            const apart = Math.abs(loss / (b.losses[i] as number) - 1);
            t.true(apart <= (device === "cpu" ? 0 : 1e-3), `${i}: ${loss} for ${b.losses[i]}`);
          }
          t.true((a.losses[4] as number) < (a.losses[0] as number));
          for (const model of [quantised, wide]) model.dispose();
        },
      );
    }
  }
}
