/**
 * Dropout of attention weights, which uses composed attention because the fused kernel has no dropout. With a
 * probability so small that nothing is dropped, outputs and gradients match the fused kernel, for every
 * kind of mask. With a large one, training varies from call to call, and evaluation does not.
 */
import test from "ava";
import {
  BertForSequenceClassification,
  DistilBertForSequenceClassification,
  GPT2LMHeadModel,
  LlamaForCausalLM,
  manualSeed,
  nn,
  noGrad,
  Phi3ForCausalLM,
  Gemma3ForCausalLM,
  randn,
  tensor,
  ViTForImageClassification,
  WhisperForConditionalGeneration,
  type Tensor,
} from "../../src/index.js";
import { testDevices, type TestDevice } from "../devices.js";
import { error } from "../parity/goldens.js";

const DECODER = {
  vocab_size: 53,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
  pad_token_id: 0,
  bos_token_id: 1,
  eos_token_id: 2,
};
const ENCODER = {
  vocab_size: 53,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 34,
  num_labels: 3,
  hidden_dropout_prob: 0,
};
const GPT2 = {
  vocab_size: 53,
  n_embd: 32,
  n_layer: 2,
  n_head: 2,
  n_positions: 32,
  embd_pdrop: 0,
  resid_pdrop: 0,
};
const DISTIL = {
  vocab_size: 53,
  dim: 32,
  hidden_dim: 48,
  n_layers: 2,
  n_heads: 2,
  dropout: 0,
  seq_classif_dropout: 0,
};
const WHISPER = {
  vocab_size: 60,
  num_mel_bins: 8,
  d_model: 32,
  encoder_layers: 1,
  encoder_attention_heads: 2,
  encoder_ffn_dim: 48,
  decoder_layers: 1,
  decoder_attention_heads: 4,
  decoder_ffn_dim: 48,
  max_source_positions: 10,
  max_target_positions: 16,
  decoder_start_token_id: 1,
  bos_token_id: 1,
  eos_token_id: 2,
  pad_token_id: 0,
};

type AnyModel = nn.Module & { forward(x: Tensor, options?: object): { logits: Tensor } };

const [ROWS, COLUMNS] = [2, 9];
const ids = (device: TestDevice): Tensor =>
  tensor(
    Int32Array.from({ length: ROWS * COLUMNS }, (_, i) => (i * 7 + 3) % 53),
    {
      shape: [ROWS, COLUMNS],
      device,
    },
  );
/** Returns a mask with padding on the left of the first row. */
const padding = (device: TestDevice): Tensor =>
  tensor(
    Int32Array.from({ length: ROWS * COLUMNS }, (_, i) => (i < 3 ? 0 : 1)),
    {
      shape: [ROWS, COLUMNS],
      device,
    },
  );
/** Returns positions of two texts in each row. */
const packed = (device: TestDevice): Tensor =>
  tensor(
    Int32Array.from({ length: ROWS * COLUMNS }, (_, i) =>
      i % COLUMNS < 4 ? i % COLUMNS : (i % COLUMNS) - 4,
    ),
    {
      shape: [ROWS, COLUMNS],
      device,
    },
  );

const models: Record<string, (p: number, device: TestDevice) => [AnyModel, Tensor, object?]> = {
  GPT2: (attn_pdrop, device) => [
    GPT2LMHeadModel.fromConfig({ ...GPT2, attn_pdrop }, { device }) as AnyModel,
    ids(device),
    { attentionMask: padding(device) },
  ],
  "GPT2, packed": (attn_pdrop, device) => [
    GPT2LMHeadModel.fromConfig({ ...GPT2, attn_pdrop }, { device }) as AnyModel,
    ids(device),
    { positionIds: packed(device) },
  ],
  Llama: (attention_dropout, device) => [
    LlamaForCausalLM.fromConfig({ ...DECODER, attention_dropout }, { device }) as AnyModel,
    ids(device),
  ],
  "Mistral with a window": (attention_dropout, device) => [
    LlamaForCausalLM.fromConfig(
      { ...DECODER, model_type: "mistral", sliding_window: 3, attention_dropout },
      { device },
    ) as AnyModel,
    ids(device),
    { attentionMask: padding(device) },
  ],
  Phi3: (attention_dropout, device) => [
    Phi3ForCausalLM.fromConfig({ ...DECODER, attention_dropout }, { device }) as AnyModel,
    ids(device),
  ],
  Gemma3: (attention_dropout, device) => [
    Gemma3ForCausalLM.fromConfig(
      { ...DECODER, head_dim: 8, sliding_window: 4, attention_dropout },
      { device },
    ) as AnyModel,
    ids(device),
  ],
  BERT: (attention_probs_dropout_prob, device) => [
    BertForSequenceClassification.fromConfig(
      { ...ENCODER, attention_probs_dropout_prob },
      { device },
    ) as AnyModel,
    ids(device),
    { attentionMask: padding(device) },
  ],
  DistilBERT: (attention_dropout, device) => [
    DistilBertForSequenceClassification.fromConfig({ ...DISTIL, attention_dropout }, { device }) as AnyModel,
    ids(device),
    { attentionMask: padding(device) },
  ],
  ViT: (attention_probs_dropout_prob, device) => {
    const { vocab_size: _, max_position_embeddings: __, ...images } = ENCODER;
    const config = { ...images, image_size: 8, patch_size: 4, attention_probs_dropout_prob };
    const model = ViTForImageClassification.fromConfig(config, { device }) as AnyModel;
    manualSeed(2);
    return [model, randn([ROWS, 3, 8, 8], { device })];
  },
  Whisper: (attention_dropout, device) => {
    const model = WhisperForConditionalGeneration.fromConfig({ ...WHISPER, attention_dropout }, { device });
    manualSeed(2);
    const labels = tensor(Int32Array.of(5, 6, 7, 8, 9, 10), { shape: [2, 3], device });
    return [model as unknown as AnyModel, randn([2, 8, 20], { device }), { labels }];
  },
};

/** Returns the logits, and the gradient of the first parameter that has one. */
async function outcome(build: () => [AnyModel, Tensor, object?]): Promise<[number[], number[]]> {
  manualSeed(1);
  const [model, x, options] = build();
  const parameters = [...model.parameters()].filter(({ shape }) => shape.length > 1);
  for (const parameter of parameters) parameter.requiresGrad = true;
  model.train();
  const { logits } = model.forward(x, options);
  logits.mul(logits).sum().backward();
  const grads = await Promise.all(parameters.map(async ({ grad }) => (grad ? [...(await grad.data())] : [])));
  const values = [...(await logits.data())];
  model.dispose();
  return [values, grads.flat()];
}

for (const device of testDevices()) {
  for (const [name, build] of Object.entries(models)) {
    test(`${name} on ${device}: composed attention equals the fused one if nothing is dropped`, async (t) => {
      const [[logits, grads], [composed, composedGrads]] = [
        await outcome(() => build(0, device)),
        await outcome(() => build(1e-9, device)),
      ];
      t.true(grads.length > 0);
      // Two orders of the same sums, through two blocks.
      t.true(error(composed, logits) <= 1e-5, `logits: ${error(composed, logits)}`);
      t.true(error(composedGrads, grads) <= 1e-5, `gradients: ${error(composedGrads, grads)}`);
    });
  }
}

for (const [name, build] of Object.entries(models)) {
  test(`${name} drops attention weights in training only`, async (t) => {
    manualSeed(1);
    const [model, x, options] = build(0.5, "cpu");
    const logits = (): Promise<unknown> =>
      noGrad(() => model.forward(x, options).logits)
        .data()
        .then((values) => [...values]);
    model.train();
    t.notDeepEqual(await logits(), await logits());
    model.eval();
    const evaluated = await logits();
    t.deepEqual(evaluated, await logits());
    manualSeed(1);
    const [plain] = build(0, "cpu");
    plain.train();
    t.deepEqual(
      [...(await noGrad(() => plain.forward(x, options).logits).data())],
      evaluated,
      "evaluation equals a model without dropout",
    );
  });
}

test("a configuration that names no attention dropout has transformers' default", (t) => {
  const options = { device: "cpu" } as const;
  const { vocab_size: _, max_position_embeddings: __, ...images } = ENCODER;
  const built = {
    GPT2: [GPT2LMHeadModel.fromConfig(GPT2, options), 0.1],
    Llama: [LlamaForCausalLM.fromConfig(DECODER, options), 0],
    BERT: [BertForSequenceClassification.fromConfig(ENCODER, options), 0.1],
    DistilBERT: [DistilBertForSequenceClassification.fromConfig(DISTIL, options), 0.1],
    ViT: [ViTForImageClassification.fromConfig({ ...images, image_size: 8, patch_size: 4 }, options), 0],
    Whisper: [WhisperForConditionalGeneration.fromConfig(WHISPER, options), 0],
  } as const;
  for (const [name, [{ config }, expected]] of Object.entries(built))
    t.is((config as unknown as { attentionDropout: number }).attentionDropout, expected, name);
});

test("MultiheadAttention drops weights in training only", async (t) => {
  for (const device of testDevices()) {
    manualSeed(4);
    const [x, mask] = [
      randn([5, 2, 8], { device }),
      tensor(Int32Array.of(1, 1, 0, 1, 1, 1, 1, 1, 1, 0), { shape: [2, 5], device }),
    ];
    const layer = (dropout: number): nn.MultiheadAttention => {
      manualSeed(5);
      return new nn.MultiheadAttention(8, 2, { dropout, device });
    };
    const run = async (of: nn.MultiheadAttention): Promise<number[]> => [
      ...(await of.forward(x, x, x, { keyMask: mask, isCausal: true }).data()),
    ];
    const fused = await run(layer(0));
    t.true(error(await run(layer(1e-9)), fused) <= 1e-5);
    const dropping = layer(0.4);
    t.notDeepEqual(await run(dropping), await run(dropping));
    t.deepEqual(await run(dropping.eval()), fused);
  }
});
