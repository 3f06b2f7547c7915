/** Each name in the options of an adapter must be in the model, or is refused with a suggestion. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { lora, nn, type Tensor } from "../../src/index.js";
import { temporary } from "../hashed.js";

class Attention extends nn.Module {
  q_proj = new nn.Linear(4, 4);
  v_proj = new nn.Linear(4, 4);
  norm = new nn.LayerNorm(4);
  override forward(x: Tensor): Tensor {
    return this.norm.forward(this.v_proj.forward(this.q_proj.forward(x)));
  }
}

class Body extends nn.Module {
  embed_tokens = new nn.Embedding(5, 4);
  layers = [new Attention(), new Attention()];
  override forward(ids: Tensor): Tensor {
    return this.layers.reduce((x, layer) => layer.forward(x), this.embed_tokens.forward(ids));
  }
}

class Model extends nn.Module {
  config = { modelType: "llama" };
  model = new Body();
  lm_head = new nn.Linear(4, 5);
  override forward(ids: Tensor): Tensor {
    return this.lm_head.forward(this.model.forward(ids));
  }
}

const targets = { targetModules: ["q_proj"] };

const MISSPELLED: [options: object, code: string, message: RegExp][] = [
  [
    { targetModules: ["q_proj", "v_porj"] },
    "ERR_NO_TARGETS",
    /^targetModules: "v_porj" matches .* \(did you mean v_proj\?\); there are: /,
  ],
  [{ targetModules: ["V_Proj"] }, "ERR_NO_TARGETS", /did you mean v_proj\?/],
  [{ targetModules: ["q_proj", "1.v_porj"] }, "ERR_NO_TARGETS", /"1\.v_porj" .*did you mean 1\.v_proj\?/],
  // A module without a low-rank form is no target.
  [{ targetModules: ["q_proj", "norm"] }, "ERR_NO_TARGETS", /"norm" matches no layer that can be adapted/],
  [{ targetModules: "all_linear" }, "ERR_NO_TARGETS", /did you mean all-linear\?/],
  [
    { targetModules: "all-linear", excludeModules: ["lm_haed"] },
    "ERR_NO_TARGETS",
    /^excludeModules: "lm_haed" .*did you mean lm_head\?/,
  ],
  [
    { targetModules: "all-linear", excludeModules: ".*up_proj" },
    "ERR_NO_TARGETS",
    /^excludeModules: "\.\*up_proj" matches no layer/,
  ],
  [
    { ...targets, modulesToSave: ["lm_head", "embed_token5"] },
    "ERR_NO_TARGETS",
    /^modulesToSave: "embed_token5" .*did you mean embed_tokens\?/,
  ],
  [
    { ...targets, rankPattern: { q_proj: 4, q_porj: 2 } },
    "ERR_NO_TARGETS",
    /^rankPattern: "q_porj" matches no adapted layer \(did you mean q_proj\?\)/,
  ],
  [
    { ...targets, alphaPattern: { v_proj: 4 } },
    "ERR_NO_TARGETS",
    /^alphaPattern: "v_proj" matches no adapted layer/,
  ],
  [
    { ...targets, layersToTransform: [0], layersPattern: ["layer"] },
    "ERR_NO_TARGETS",
    /.*layers?Pattern|layersToTransform/,
  ],
  [
    { ...targets, layersToTransform: [0], layersPattern: ["layers", "lyers"] },
    "ERR_NO_TARGETS",
    /^layersPattern: "lyers" matches no list of layers \(did you mean layers\?\)/,
  ],
  [
    { ...targets, layersToTransform: [1, 2] },
    "ERR_NO_TARGETS",
    /^layersToTransform: there is no layer 2; the model has layers 0 to 1/,
  ],
  [
    { ...targets, trainableTokenIndices: { embed_token: [1], embed_tkens: [2] } },
    "ERR_NO_TARGETS",
    /^trainableTokenIndices: "embed_token" .*did you mean embed_tokens\?/,
  ],
  [{ ...targets, loraAlfa: 3 }, "ERR_OPTION", /there is no option loraAlfa \(did you mean loraAlpha\?\)/],
  [{ ...targets, lora_alpha: 3 }, "ERR_OPTION", /there is no option lora_alpha; use loraAlpha, /],
  [{ ...targets, initLoraWeights: "pisa" }, "ERR_OPTION", /got "pisa" \(did you mean pissa\?\)/],
  [
    { ...targets, initLoraWeights: "eva", evaData: [], evaConfig: { roh: 2 } },
    "ERR_OPTION",
    /there is no option roh \(did you mean rho\?\)/,
  ],
];

for (const [options, code, message] of MISSPELLED) {
  test(`a misspelled name is refused: ${JSON.stringify(options)}`, async (t) => {
    const model = new Model();
    await t.throwsAsync(lora.inject(model, options), { code, message });
    t.deepEqual(lora.adapters(model), []);
    t.true(model.lm_head.weight.requiresGrad);
    model.dispose();
  });
}

test("names that a model may lack are accepted: PEFT's table, heads, all-linear", async (t) => {
  const model = new Model();
  await lora.inject(model, { name: "peft", targetModules: "peft" });
  await lora.inject(model, { name: "table" });
  await lora.inject(model, {
    name: "head",
    targetModules: ["q_proj", "v_proj"],
    excludeModules: ["layers.0.q_proj"],
    modulesToSave: ["lm_head", "score", "classifier"],
    layersToTransform: 1,
    layersPattern: "layers",
    rankPattern: { "1.q_proj": 3 },
  });
  t.deepEqual(lora.adapters(model), ["peft", "table", "head"]);
  model.dispose();
});

test("names in a file that the model lacks are accepted if all keys of the file match", async (t) => {
  const folder = temporary();
  const model = new Model();
  await lora.inject(model, { targetModules: ["q_proj", "v_proj"], r: 2 });
  await lora.saveAdapter(model, folder);
  const file = join(folder, "adapter_config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  // PEFT writes the names that its user gave: names for several families, patterns of other layers.
  config["target_modules"] = ["q_proj", "v_proj", "query_key_value"];
  config["exclude_modules"] = ["vision"];
  config["rank_pattern"] = { up_proj: 4 };
  config["alpha_pattern"] = { up_proj: 4 };
  writeFileSync(file, JSON.stringify(config));
  const other = new Model();
  const { adapted } = await lora.loadAdapter(other, folder);
  t.is(adapted.length, 4);
  model.dispose();
  other.dispose();
});
