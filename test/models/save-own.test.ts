/** saveModel of models with user-defined layers: the folder loads and computes the same, or the layer is refused. */
import { existsSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import {
  BertForSequenceClassification,
  DistilBertModel,
  GPT2LMHeadModel,
  LlamaForCausalLM,
  loadModel,
  LowrankError,
  lora,
  manualSeed,
  nn,
  ones,
  rand,
  saveModel,
  tensor,
  type CausalLM,
  type Tensor,
} from "../../src/index.js";
import { temporary, tinyModel } from "../hashed.js";

const load = (): Promise<CausalLM> => loadModel(tinyModel(), { task: "causal-lm", device: "cpu" });

/** Wraps a layer without changing it, except for the names of its tensors. */
class Wrapper extends nn.Module {
  constructor(public inner: nn.Linear) {
    super();
  }
  forward(x: Tensor): Tensor {
    return this.inner.forward(x);
  }
}

class Doubled extends nn.Linear {
  override forward(x: Tensor): Tensor {
    return super.forward(x).mul(2);
  }
}

class Named extends nn.Linear {
  label = "query";
}

type Block = { self_attn: Record<string, nn.Module>; mlp: Record<string, nn.Module> };
const blockOf = (model: CausalLM): Block =>
  [...model.namedModules()].find(([path]) => path === "model.layers.0")?.[1] as unknown as Block;

const CHANGES: Record<string, [change: (model: CausalLM) => void, found: RegExp]> = {
  "a wrapper around a layer": [
    (model) => {
      const { self_attn } = blockOf(model);
      self_attn["q_proj"] = new Wrapper(self_attn["q_proj"] as nn.Linear);
    },
    /model\.layers\.0\.self_attn\.q_proj, a Wrapper/,
  ],
  "a layer with its own forward": [
    (model) => {
      const { mlp } = blockOf(model);
      const { inFeatures, outFeatures, weight } = mlp["up_proj"] as nn.Linear;
      mlp["up_proj"] = new Doubled(inFeatures, outFeatures, { weight });
    },
    /model\.layers\.0\.mlp\.up_proj, a Doubled/,
  ],
  "a forward that was assigned": [
    (model) => {
      const layer = blockOf(model).self_attn["o_proj"] as nn.Linear;
      const forward = layer.forward.bind(layer);
      layer.forward = (x) => forward(x).mul(2);
    },
    /model\.layers\.0\.self_attn\.o_proj, a Linear/,
  ],
  "a further module": [
    (model) => void ((model as unknown as { probe: nn.Linear }).probe = new nn.Linear(2, 2)),
    /probe, a Linear/,
  ],
  "a further parameter": [
    (model) => void ((model as unknown as { scale: Tensor }).scale = ones([1], { requiresGrad: true })),
    /\(scale\)/,
  ],
  "a layer of another size": [
    (model) => {
      const { mlp } = blockOf(model);
      mlp["up_proj"] = new nn.Linear(3, 5, { bias: false });
    },
    /model\.layers\.0\.mlp\.up_proj\.weight \[5, 3\] instead of/,
  ],
  "a layer that was taken out": [
    (model) => {
      delete blockOf(model).mlp["up_proj"];
    },
    /model\.layers\.0\.mlp\.up_proj, a Linear, is missing/,
  ],
};

for (const [name, [change, found]] of Object.entries(CHANGES)) {
  for (const file of ["folder", "model.gguf"]) {
    test(`${name} is refused by name, as a ${file}`, async (t) => {
      const model = await load();
      change(model);
      const dir = join(temporary(), file);
      const error = await t.throwsAsync(saveModel(model, dir), { instanceOf: LowrankError, message: found });
      t.is((error as LowrankError | undefined)?.code, "ERR_OPTION");
      t.false(existsSync(dir));
    });
  }
}

test("layers with further fields, and low-rank layers of rank 0, are saved: the folder computes the same", async (t) => {
  const model = await load();
  const { self_attn, mlp } = blockOf(model);
  const { inFeatures, outFeatures, weight } = self_attn["q_proj"] as nn.Linear;
  self_attn["q_proj"] = new Named(inFeatures, outFeatures, { weight });
  mlp["up_proj"] = lora.Linear.fromBase(mlp["up_proj"] as nn.Linear, { r: 0 });
  const dir = join(temporary(), "saved");
  await saveModel(model, dir);
  const again = await loadModel(dir, { task: "causal-lm", device: "cpu" });
  const ids = tensor(Int32Array.of(1, 2, 3, 4), { shape: [1, 4], device: "cpu" });
  const logits = async (one: CausalLM): Promise<number[]> => [...(await one.forward(ids).logits.data())];
  t.deepEqual(await logits(again), await logits(model));
});

test.serial("models with random weights are saved, without drawing random numbers", async (t) => {
  const sizes = {
    vocab_size: 11,
    hidden_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    intermediate_size: 16,
  };
  const options = { device: "cpu" } as const;
  for (const model of [
    LlamaForCausalLM.fromConfig({ ...sizes, tie_word_embeddings: true }, options),
    BertForSequenceClassification.fromConfig({ ...sizes, num_labels: 3 }, options),
    DistilBertModel.fromConfig({ vocab_size: 11, dim: 8, n_layers: 1, n_heads: 2, hidden_dim: 16 }, options),
    GPT2LMHeadModel.fromConfig(
      { vocab_size: 11, n_embd: 8, n_layer: 1, n_head: 2, n_positions: 16 },
      options,
    ),
  ]) {
    manualSeed(5);
    const expected = await rand([3]).data();
    manualSeed(5);
    await saveModel(model, join(temporary(), "saved"));
    t.deepEqual(await rand([3]).data(), expected);
    (model as unknown as { probe: nn.Linear }).probe = new nn.Linear(2, 2);
    await t.throwsAsync(saveModel(model, join(temporary(), "saved")), { message: /probe, a Linear/ });
  }
});
