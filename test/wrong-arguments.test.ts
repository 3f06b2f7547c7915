/** Wrong arguments of layers, optimizers, models and runs are errors of one class that name function and argument. */
import { join } from "node:path";

import test from "ava";

import {
  finetune,
  loadModel,
  lora,
  LowrankError,
  manualSeed,
  nn,
  noGrad,
  ones,
  optim,
  safetensors,
  saveModel,
  Tensor,
  tensor,
  type ErrorCode,
} from "../src/index.js";
import { temporary, tinyModel } from "./hashed.js";

/** Returns a value with any type, as from JavaScript. */
const any = (value: unknown): never => value as never;
const device = { device: "cpu" } as const;

type Case = [call: () => unknown, message: RegExp, code?: ErrorCode];

const x = tensor([[1, 2, 3]], device);
const layer = new nn.Linear(3, 2, device);
const low = new lora.Linear(3, 2, { r: 1, ...device });
const odd: symbol = Symbol("odd");

const CASES: Case[] = [
  [() => x.sum(any(odd)), /^sum: dim must be a whole number, got Symbol\(odd\)$/],
  [() => x.squeeze(any({})), /^squeeze: dim must be a whole number, got an object$/],
  [() => x.permute(any([Object.create(null), 0])), /^permute: dim must be a whole number, got an object$/],
  [() => Reflect.construct(Tensor, [1]), /^new Tensor: a tensor is made by tensor\(\), zeros\(\)/],
  [() => x.eq(any(Tensor.prototype)), /^eq: .* got the prototype of Tensor$/],
  [() => x.backward(any(new Proxy(x, {}))), /^backward: gradient must be a tensor, got a Tensor$/],
  [() => layer.forward(any(Tensor.prototype)), /^Linear: the input must be a tensor, got the prototype of Tensor$/],
  [() => noGrad(() => x.copy(ones([1, 3], { dtype: "f16", ...device }))), /^copy: from is of f16, .* of f32; .*to\("f32"\)/, "ERR_DTYPE"],
  [() => noGrad(() => x.copy(ones([3], device))), /\[3\]/, "ERR_SHAPE_MISMATCH"],
  [() => tensor([1], any(x)), /^tensor: the last argument must be an object of options, got a Tensor$/],
  [() => manualSeed(any("x")), /^manualSeed: seed must be a whole number of at least 0, got "x"$/],
  [() => safetensors.save(any("x.safetensors"), any(new Map())), /^safetensors\.save: tensors must be tensors by name, got a Map$/],
  [() => new nn.Sequential(any(nn.Linear.prototype)), /Sequential: .* a module, got the prototype of Linear$/],
  [() => new nn.Sequential(any(nn.ReLU)), /Sequential: .* a module, got the class ReLU$/],
  [() => new nn.ModuleDict().get(any(odd)), /^ModuleDict\.get: name must be a string, got Symbol\(odd\)$/],
  [() => new nn.ModuleList().at(any({})), /^ModuleList\.at: index must be a whole number, got an object$/],
  [() => new nn.AvgPool2d(any([1n, 1n])), /^AvgPool2d: kernelSize must be a whole number of at least 1, or 2 of them/],
  [() => lora.LoRALayer(any(undefined)), /^lora\.LoRALayer: Base must be a class of modules with a weight, .* got undefined$/],
  [() => lora.LoRALayer(any(Map)), /^lora\.LoRALayer: Base must be a class of modules .* got the class Map$/],
  [() => lora.ConvLoRA(any(nn.Linear)), /^lora\.ConvLoRA: Base must be a class of convolutions, .* got the class Linear$/],
  [() => lora.Linear.fromBase(layer, any(null)), /^lora\.Linear\.fromBase: options must be an object of options, got null$/],
  [() => lora.Linear.fromBase(layer, any(5)), /^lora\.Linear\.fromBase: options must be an object of options, got 5$/],
  [() => lora.Conv2d.fromBase(new nn.Conv2d(1, 1, 1, device), any(null)), /^lora\.Conv2d\.fromBase: options/],
  [() => lora.Embedding.fromBase(new nn.Embedding(2, 2, device), any(null)), /^lora\.Embedding\.fromBase: options/],
  [() => lora.MergedLinear.fromBase(layer, any(null)), /^lora\.MergedLinear\.fromBase: options/],
  [() => low.forward(any(undefined)), /^lora\.Linear: the input must be a tensor, got undefined$/],
  [() => new lora.Conv1d(1, 1, 1, { r: 1, ...device }).forward(x.reshape(3)), /^lora\.Conv1d: takes \[B, 1, L\]/, "ERR_SHAPE_MISMATCH"],
  [() => low.deltaWeight(any({})), /no adapter named an object/, "ERR_UNKNOWN_ADAPTER"],
  [() => lora.setAdapter(low, any(new Set(["default"]))), /^setAdapter: names must be .* got a Set$/],
  [() => new optim.AdamW(any([null])), /^AdamW: params\[0\] must be a tensor, or a group/],
  [() => new optim.AdamW(any([undefined])), /^AdamW: params\[0\] must be a tensor, or a group/],
  [() => optim.LoraFA.of(any(undefined)), /^LoraFA\.of: model must be a module, got undefined$/],
  [() => optim.loraPlusGroups(low, any(undefined)), /^loraPlusGroups: lr must be 0 or more, got undefined$/],
  [() => optim.loraPlusGroups(low, any({ lr: 1, ratio: {} })), /^loraPlusGroups: ratio must be 0 or more, got an object$/],
  [() => optim.loraPlusGroups(low, any({ lr: 1, ratio: 2, lrB: 3 })), /^loraPlusGroups: there is no option lrB/],
  [() => optim.loraPlusGroups(any(3), { lr: 1, ratio: 2 }), /^loraPlusGroups: model must be a module, got 3$/],
  [() => optim.schedule.linear(any(undefined)), /^schedule\.linear: total must be a number of steps, got undefined$/],
  [() => optim.schedule.cosine(any(null)), /^schedule\.cosine: .* options, got null$/],
  [() => optim.schedule.constant(any({ steps: 3 })), /^schedule\.constant: there is no option steps/],
  [() => finetune(any(undefined)).result, /^finetune takes an object of options, with a model and data$/],
  [() => finetune(any(new Date(0))).result, /^finetune: the argument must be an object of options, got a Date$/],
  [() => loadModel(any({})), /^loadModel: path must be a string, got an object$/],
  [() => loadModel(tinyModel(), any({ dtpye: "f16" })), /^loadModel: there is no option dtpye/],
  [() => loadModel(tinyModel(), any({ signal: {} })), /^loadModel: signal must be an AbortSignal, got an object$/],
  [() => saveModel(any(layer), join(temporary(), "model")), /^saveModel: model must be a pretrained model, .* got a Linear$/],
]; // prettier-ignore

for (const [call, message, code = "ERR_OPTION"] of CASES) {
  test(`refused by function and name: ${String(call)}`, async (t) => {
    const error = await t.throwsAsync<LowrankError>(async () => call(), { message });
    t.true(error instanceof LowrankError);
    t.is(error?.code, code);
  });
}

test("saveModel and a tokenizer name their wrong arguments", async (t) => {
  const model = await loadModel(tinyModel(), device);
  const { tokenizer } = model;
  if (tokenizer === undefined) return t.fail("the model has a tokenizer");
  const cases: Case[] = [
    [() => saveModel(model, any("")), /^saveModel: dir must be the name of a folder, got ""$/],
    [() => saveModel(model, join(temporary(), "a"), any({ dtype: "i32" })), /^saveModel: dtype must be one of f32, f16, bf16, got "i32"$/],
    [() => saveModel(model, join(temporary(), "b"), any({ shard: 1 })), /^saveModel: there is no option shard/],
    [() => tokenizer.encode(any(3)), /^encode: text must be a string, got 3$/],
    [() => tokenizer.encode("a", any({ addSpecialTokens: 1 })), /^encode: addSpecialTokens must be true or false, got 1$/],
    [() => tokenizer.encodeAll(any("a")), /^encodeAll: texts must be an array, got "a"$/],
    [() => tokenizer.encodeAll(any(["a", null])), /^encodeAll: texts\[1\] must be a string, got null$/],
    [() => tokenizer.decode(any(undefined)), /^decode: ids must be an array of token ids, got undefined$/],
    [() => tokenizer.decode([1, 1.5]), /^decode: ids\[1\] must be a token id, got 1\.5$/],
    [() => tokenizer.decode([2 ** 31]), /^decode: ids\[0\] must be a token id, got 2147483648$/],
    [() => tokenizer.decodeStream([1]).push(any("x")), /^push: id must be a token id, got "x"$/],
    [() => tokenizer.tokenToId(any(null)), /^tokenToId: token must be a string, got null$/],
  ]; // prettier-ignore
  for (const [call, message] of cases) {
    const error = await t.throwsAsync<LowrankError>(async () => call(), { message }, String(call));
    t.is(error?.code, "ERR_OPTION", String(call));
  }
  t.is(tokenizer.decode([...tokenizer.encode("the sea")]), tokenizer.decode(tokenizer.encode("the sea")));
  model.dispose();
});
