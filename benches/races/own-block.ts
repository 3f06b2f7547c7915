/** Times a product, a LoRA linear layer or a block of SmolLM2; the counterpart of burn/. */
import { lora, noGrad, rand, scope, type Tensor } from "../../src/index.js";
import { model as made } from "./model.js";
import { race } from "./turns.js";

const device = "cpu";
/** As in the counterpart. */
const PASSES = 10;
const TOKENS = 512;

async function last(of: Tensor): Promise<void> {
  await scope(() => of.sum()).item();
}

/** Forward and backward; the gradients of the parameters and of the input are computed from scratch. */
function backward(forward: (x: Tensor) => Tensor, x: Tensor, parameters: Tensor[]): () => Promise<void> {
  const dOut = noGrad(() => rand(scope(() => forward(x)).shape, { device }));
  return async () => {
    for (let pass = 0; pass < PASSES; pass++) {
      for (const leaf of [...parameters, x]) leaf.grad = null;
      scope(() => forward(x).backward(dOut));
    }
    await last(x.grad as Tensor);
  };
}

const TURNS: Record<string, () => Promise<() => Promise<void>>> = {
  product: async () => {
    const [a, b] = [rand([1024, 1024], { device }), rand([1024, 1024], { device })];
    return async () => {
      for (let pass = 1; pass < PASSES; pass++) scope(() => void a.matmul(b));
      await last(a.matmul(b));
    };
  },
  linear: async () => {
    const options = { r: 16, loraAlpha: 32, mergeWeights: false, bias: false };
    const layer = new lora.Linear(1024, 1024, options);
    layer.to(device);
    lora.markOnlyLoraAsTrainable(layer);
    layer.train();
    const x = rand([1024, 1024], { device, requiresGrad: true });
    const forward = layer.forward.bind(layer) as (x: Tensor) => Tensor;
    return backward(
      forward,
      x,
      [...layer.parameters()].filter((p) => p.requiresGrad),
    );
  },
  block: async () => {
    const model = made({ layers: 1 });
    await lora.inject(model, { r: 16, loraAlpha: 32, targetModules: "all-linear" });
    model.train();
    const [block] = model.model.layers;
    if (block === undefined) throw new Error("a model of one layer has one");
    const x = rand([1, TOKENS, model.config.hiddenSize], { device, requiresGrad: true });
    const inputs = { rotation: model.tables[0]!.selectRotation(device, 0, TOKENS), keyMask: undefined };
    return backward(
      (x) => block.forward(x, inputs),
      x,
      [...block.parameters()].filter((p) => p.requiresGrad),
    );
  },
};

const what = process.argv[2] ?? "";
const turn = await TURNS[what]?.();
if (turn === undefined) throw new Error(`there is no ${what}; there are ${Object.keys(TURNS).join(", ")}`);
await race(async () => {
  await turn();
  return { passes: PASSES };
});
