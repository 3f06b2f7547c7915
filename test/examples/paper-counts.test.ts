/** The number of trained weights in the paper's models, counted on a device without storage. */
import test, { type ExecutionContext } from "ava";
import { adapt, SIZES } from "../../examples/e2e-nlg/model.js";
import { memory, zeros, type Tensor } from "../../src/index.js";
import { injectNow } from "../../src/lora/inject/inject.js";
import { readBertConfig } from "../../src/models/bert/config.js";
import { BertModel } from "../../src/models/bert/model.js";
import { readGpt2Config } from "../../src/models/gpt2/config.js";
import { GPT2LMHeadModel } from "../../src/models/gpt2/model.js";
import type { PretrainedModel } from "../../src/models/pretrained.js";
import { Weights } from "../../src/models/weights.js";
import { makeParameter } from "../../src/tensor/tensor.js";

/** Weights that have only a shape. */
class Shapes extends Weights {
  override has(): boolean {
    return true;
  }

  override take(_name: string, shape: number[]): Tensor {
    return makeParameter(zeros(shape, { device: "meta:cpu" }));
  }
}

const size = (tensors: Iterable<Tensor>): number =>
  [...new Set(tensors)].reduce((sum, one) => sum + one.size, 0);

/**
 * Checks a model's number of weights before adapting, its number of trained ones after it, and that neither is
 * allocated.
 */
function check(
  t: ExecutionContext,
  make: () => PretrainedModel,
  adapted: (model: PretrainedModel) => number,
  { whole, trained }: { whole: number; trained: number },
): void {
  const before = process.memoryUsage.rss();
  const model = make();
  t.is(size(Object.values(model.stateDict())), whole);
  t.is(adapted(model), trained);
  t.is(size([...model.parameters()].filter((one) => one.requiresGrad)), trained);
  t.true(memory("meta:cpu").live >= 4 * whole, "counted as a cpu would hold it");
  t.true(process.memoryUsage.rss() - before < whole, "a quarter of the weights, had they been there");
  model.dispose();
}

const gpt2: [size: keyof typeof SIZES, trained: number, whole: number][] = [
  ["small", 147_456, 124_439_808],
  ["medium", 393_216, 354_823_168],
  ["large", 737_280, 774_030_080],
];

for (const [name, trained, whole] of gpt2) {
  test.serial(`GPT-2 ${name}`, (t) => {
    const config = readGpt2Config({ model_type: "gpt2", ...SIZES[name] });
    check(
      t,
      () => new GPT2LMHeadModel(config, new Shapes()),
      (model) => adapt(model as GPT2LMHeadModel),
      { whole, trained },
    );
  });
}

const roberta: [name: string, shape: object, trained: number, whole: number][] = [
  ["base", {}, 294_912, 124_055_040],
  [
    "large",
    { hidden_size: 1024, num_hidden_layers: 24, num_attention_heads: 16, intermediate_size: 4096 },
    786_432,
    354_310_144,
  ],
];

for (const [name, shape, trained, whole] of roberta) {
  test.serial(`RoBERTa ${name}`, (t) => {
    const config = readBertConfig({
      model_type: "roberta",
      max_position_embeddings: 514,
      type_vocab_size: 1,
      ...shape,
    });
    check(
      t,
      () => new BertModel(config, new Shapes(), { pooler: false }),
      (model) => injectNow(model, { r: 8, targetModules: ["query", "value"] }).trainable,
      { whole, trained },
    );
  });
}
