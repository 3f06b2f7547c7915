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
  [() => x.sum(any(odd)), /^sum: dim is a whole number, not Symbol\(odd\)$/],
  [() => x.squeeze(any({})), /^squeeze: dim is a whole number, not an object$/],
  [() => x.permute(any([Object.create(null), 0])), /^permute: dim is a whole number, not an object$/],
  [() => Reflect.construct(Tensor, [1]), /^new Tensor: a tensor is made by tensor\(\), zeros\(\)/],
  [() => x.eq(any(Tensor.prototype)), /^eq: .* not the prototype of Tensor$/],
  [() => x.backward(any(new Proxy(x, {}))), /^backward: gradient is a tensor, not a Tensor$/],
  [() => layer.forward(any(Tensor.prototype)), /^Linear: the input is a tensor, not the prototype of Tensor$/],
  [() => noGrad(() => x.copy(ones([1, 3], { dtype: "f16", ...device }))), /^copy: from is of f16, .* of f32; .*to\("f32"\)/, "ERR_DTYPE"],
  [() => noGrad(() => x.copy(ones([3], device))), /\[3\]/, "ERR_SHAPE_MISMATCH"],
  [() => tensor([1], any(x)), /^tensor: the last argument is an object of options, not a Tensor$/],
  [() => manualSeed(any("x")), /^manualSeed: seed is a whole number from 0 on, not "x"$/],
  [() => safetensors.save(any("x.safetensors"), any(new Map())), /^safetensors\.save: tensors is tensors by name, not a Map$/],
  [() => new nn.Sequential(any(nn.Linear.prototype)), /Sequential: .* a module, not the prototype of Linear$/],
  [() => new nn.Sequential(any(nn.ReLU)), /Sequential: .* a module, not the class ReLU$/],
  [() => new nn.ModuleDict().get(any(odd)), /^ModuleDict\.get: name is a text, not Symbol\(odd\)$/],
  [() => new nn.ModuleList().at(any({})), /^ModuleList\.at: index is a whole number, not an object$/],
  [() => new nn.AvgPool2d(any([1n, 1n])), /^AvgPool2d: kernelSize is a whole number of at least 1, or 2 of them/],
  [() => lora.LoRALayer(any(undefined)), /^lora\.LoRALayer: Base is a class of modules with a weight, .* not undefined$/],
  [() => lora.LoRALayer(any(Map)), /^lora\.LoRALayer: Base is a class of modules .* not the class Map$/],
  [() => lora.ConvLoRA(any(nn.Linear)), /^lora\.ConvLoRA: Base is a class of convolutions, .* not the class Linear$/],
  [() => lora.Linear.fromBase(layer, any(null)), /^lora\.Linear\.fromBase: options is an object of options, not null$/],
  [() => lora.Linear.fromBase(layer, any(5)), /^lora\.Linear\.fromBase: options is an object of options, not 5$/],
  [() => lora.Conv2d.fromBase(new nn.Conv2d(1, 1, 1, device), any(null)), /^lora\.Conv2d\.fromBase: options/],
  [() => lora.Embedding.fromBase(new nn.Embedding(2, 2, device), any(null)), /^lora\.Embedding\.fromBase: options/],
  [() => lora.MergedLinear.fromBase(layer, any(null)), /^lora\.MergedLinear\.fromBase: options/],
  [() => low.forward(any(undefined)), /^lora\.Linear: the input is a tensor, not undefined$/],
  [() => new lora.Conv1d(1, 1, 1, { r: 1, ...device }).forward(x.reshape(3)), /^lora\.Conv1d: takes \[B, 1, L\]/, "ERR_SHAPE_MISMATCH"],
  [() => low.deltaWeight(any({})), /no adapter named an object/, "ERR_UNKNOWN_ADAPTER"],
  [() => lora.setAdapter(low, any(new Set(["default"]))), /^setAdapter: names is .* not a Set$/],
  [() => new optim.AdamW(any([null])), /^AdamW: params\[0\] is a tensor, or a group/],
  [() => new optim.AdamW(any([undefined])), /^AdamW: params\[0\] is a tensor, or a group/],
  [() => optim.LoraFA.of(any(undefined)), /^LoraFA\.of: model is a module, not undefined$/],
  [() => optim.loraPlusGroups(low, any(undefined)), /^loraPlusGroups: lr is 0 or more, not undefined$/],
  [() => optim.loraPlusGroups(low, any({ lr: 1, ratio: {} })), /^loraPlusGroups: ratio is 0 or more, not an object$/],
  [() => optim.loraPlusGroups(low, any({ lr: 1, ratio: 2, lrB: 3 })), /^loraPlusGroups: there is no option lrB/],
  [() => optim.loraPlusGroups(any(3), { lr: 1, ratio: 2 }), /^loraPlusGroups: model is a module, not 3$/],
  [() => optim.schedule.linear(any(undefined)), /^schedule\.linear: total is a number of steps, not undefined$/],
  [() => optim.schedule.cosine(any(null)), /^schedule\.cosine: .* options, not null$/],
  [() => optim.schedule.constant(any({ steps: 3 })), /^schedule\.constant: there is no option steps/],
  [() => finetune(any(undefined)).result, /^finetune takes an object of options, with a model and data$/],
  [() => finetune(any(new Date(0))).result, /^finetune: the argument is an object of options, not a Date$/],
  [() => loadModel(any({})), /^loadModel: path is a text, not an object$/],
  [() => loadModel(tinyModel(), any({ dtpye: "f16" })), /^loadModel: there is no option dtpye/],
  [() => loadModel(tinyModel(), any({ signal: {} })), /^loadModel: signal is an AbortSignal, not an object$/],
  [() => saveModel(any(layer), join(temporary(), "model")), /^saveModel: model is a pretrained model, .* not a Linear$/],
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
    [() => saveModel(model, any("")), /^saveModel: dir is the name of a folder, not ""$/],
    [() => saveModel(model, join(temporary(), "a"), any({ dtype: "i32" })), /^saveModel: dtype is one of f32, f16, bf16, not "i32"$/],
    [() => saveModel(model, join(temporary(), "b"), any({ shard: 1 })), /^saveModel: there is no option shard/],
    [() => tokenizer.encode(any(3)), /^encode: text is a text, not 3$/],
    [() => tokenizer.encode("a", any({ addSpecialTokens: 1 })), /^encode: addSpecialTokens is true or false, not 1$/],
    [() => tokenizer.encodeAll(any("a")), /^encodeAll: texts is an array, not "a"$/],
    [() => tokenizer.encodeAll(any(["a", null])), /^encodeAll: texts\[1\] is a text, not null$/],
    [() => tokenizer.decode(any(undefined)), /^decode: ids is an array of token ids, not undefined$/],
    [() => tokenizer.decode([1, 1.5]), /^decode: ids\[1\] is a token id, not 1\.5$/],
    [() => tokenizer.decode([2 ** 31]), /^decode: ids\[0\] is a token id, not 2147483648$/],
    [() => tokenizer.decodeStream([1]).push(any("x")), /^push: id is a token id, not "x"$/],
    [() => tokenizer.tokenToId(any(null)), /^tokenToId: token is a text, not null$/],
  ]; // prettier-ignore
  for (const [call, message] of cases) {
    const error = await t.throwsAsync<LowrankError>(async () => call(), { message }, String(call));
    t.is(error?.code, "ERR_OPTION", String(call));
  }
  t.is(tokenizer.decode([...tokenizer.encode("the sea")]), tokenizer.decode(tokenizer.encode("the sea")));
  model.dispose();
});
