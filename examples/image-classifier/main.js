// A small network learns to classify light strokes on a dark ground by direction. Low-rank weights on its convolutions
// then adapt it to dark strokes on a light ground.
import { lora, manualSeed, nn, noGrad, optim, rand, scope, tensor, Trainer } from "lowrank";

const SIZE = 16;
const KINDS = ["horizontal", "vertical", "falling", "rising"];

class Strokes extends nn.Module {
  first = new nn.Conv2d(1, 16, 3, { padding: 1 });
  second = new nn.Conv2d(16, 32, 3, { stride: 2, padding: 1 });
  third = new nn.Conv2d(32, 32, 3, { stride: 2, padding: 1 });
  head = new nn.Linear(32, KINDS.length);

  /** Images [B, 1, H, W] → logits [B, kinds]. */
  forward(images) {
    const features = this.third.forward(this.second.forward(this.first.forward(images).relu()).relu()).relu();
    return this.head.forward(features.max([2, 3]));
  }
}

/** Makes noisy images [n, 1, 16, 16] of one stroke each, and their classes. */
async function strokes(n, { dark }) {
  const [places, noise] = [rand([n]), rand([n * SIZE * SIZE])];
  const [at, pixels] = [await places.data(), await noise.data()];
  places.dispose();
  noise.dispose();
  const labels = Int32Array.from({ length: n }, (_, i) => i % KINDS.length);
  const images = Float32Array.from(pixels, (value, i) => {
    const image = Math.floor(i / SIZE ** 2);
    const [y, x] = [Math.floor(i / SIZE) % SIZE, i % SIZE];
    const place = Math.floor(at[image] * (SIZE - 4)) + 2;
    const off = [y - place, x - place, y - x + place - 8, y + x - place - 8][labels[image]];
    const value0 = 0.3 * value + (off === 0 ? 0.7 : 0);
    return dark ? 1 - value0 : value0;
  });
  return { images: tensor(images, { shape: [n, 1, SIZE, SIZE] }), labels: tensor(labels) };
}

/** The fraction of images that are classified correctly. */
function accuracy(model, { images, labels }) {
  return scope(async () => {
    const right = noGrad(() => model.forward(images).argmax(1).eq(labels).to("f32").mean());
    return `${(100 * (await right.item())).toFixed(1)}%`;
  });
}

/** Trains the parameters that require gradients, on new images in each step. */
async function train(model, { dark, steps, lr }) {
  const run = new Trainer({
    model,
    data: async function* () {
      for (let step = 0; step < steps; step++) yield await strokes(64, { dark });
    },
    loss: (m, { images, labels }) => m.forward(images).crossEntropy(labels),
    optimizer: new optim.AdamW(model.parameters({ trainable: true }), { lr }),
    schedule: optim.schedule.linear({ warmup: 5, total: steps }),
    steps,
  });
  await run.result;
}

manualSeed(0);
const model = new Strokes();
const [light, dark] = [await strokes(256, { dark: false }), await strokes(256, { dark: true })];

await train(model, { dark: false, steps: 120, lr: 1e-2 });
console.log(`light strokes ${await accuracy(model, light)}, dark ones ${await accuracy(model, dark)}`);

const { adapted, trainable, total } = await lora.inject(model, {
  r: 4,
  loraAlpha: 8,
  targetModules: ["first", "second", "third"],
});
await train(model, { dark: true, steps: 120, lr: 2e-2 });
console.log(
  `${trainable} of ${total} weights, beside ${adapted.join(", ")}: dark strokes ${await accuracy(model, dark)}`,
);
await lora.saveAdapter(model, "dark");

lora.setAdapter(model, []);
console.log(`without the adapter: light strokes ${await accuracy(model, light)}`);
