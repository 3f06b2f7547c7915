/** Times forward and backward of one LoRA layer; the counterpart of peer_layer.py. */
import { lora, rand, scope, tensor, type nn, type Tensor } from "../../src/index.js";
import { hashedIds } from "./step.js";
import { race } from "./turns.js";

const OPTIONS = { r: 16, loraAlpha: 32, mergeWeights: false };
const device = "cpu";

/** Inputs are leaves that require a gradient, as inside a network; ids cannot. */
const LAYERS: Record<string, () => { layer: nn.Module; x: Tensor }> = {
  linear: () => ({
    layer: new lora.Linear(4096, 4096, { ...OPTIONS, bias: false }).to(device),
    x: floats(512, 4096),
  }),
  linear2048: () => ({
    layer: new lora.Linear(4096, 4096, { ...OPTIONS, bias: false }).to(device),
    x: floats(2048, 4096),
  }),
  embedding: () => ({ layer: new lora.Embedding(49152, 576, OPTIONS).to(device), x: ids(2048, 49152) }),
  conv2d: () => ({
    layer: new lora.Conv2d(256, 256, 3, { ...OPTIONS, padding: 1 }).to(device),
    x: floats(8, 256, 32, 32),
  }),
};

function floats(...shape: number[]): Tensor {
  return rand(shape, { device, requiresGrad: true });
}

function ids(count: number, vocabulary: number): Tensor {
  const data = hashedIds(count, vocabulary);
  return tensor(data, { shape: [1, count], device });
}

const name = process.argv[2] ?? "";
const made = LAYERS[name];
if (made === undefined)
  throw new Error(`there is no layer ${name}; there are ${Object.keys(LAYERS).join(", ")}`);
const { layer, x } = made();
lora.markOnlyLoraAsTrainable(layer);
layer.train();
const forward = (): Tensor => (layer.forward as (x: Tensor) => Tensor)(x);
const dOut = scope(() => rand(scope(forward).shape, { device }));
const parameters = [...layer.parameters()].filter((p) => p.requiresGrad);

/** Passes per turn; a short pass is repeated until a turn is long enough to compare. */
const PASSES = name === "embedding" ? 50 : 1;

await race(async () => {
  for (let pass = 0; pass < PASSES; pass++) {
    for (const leaf of [...parameters, x]) leaf.grad = null;
    scope(() => forward().backward(dOut));
  }
  // Reads the result of the turn's last launch, so that all have run.
  const last = parameters.at(-1)?.grad;
  if (!last) throw new Error("nothing was trained");
  await scope(() => last.sum()).item();
  return { passes: PASSES };
});
