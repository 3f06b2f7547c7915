// A U-Net (Ronneberger et al. 2015) learns to outline bright discs. Low-rank weights on its convolutions then adapt it to
// dark discs.
import { lora, manualSeed, nn, noGrad, optim, safetensors, scope, tensor } from "lowrank";

const [SIZE, BATCH] = [16, 4];

// node main.js [WEIGHTS] [ADAPTER]: trained weights instead of the first training, and an adapter to continue from.
const [weights, adapter] = process.argv.slice(2);

/** Two convolutions, each followed by a group norm. */
class Block extends nn.Module {
  constructor(channels, out) {
    super();
    this.conv1 = new nn.Conv2d(channels, out, 3, { padding: 1 });
    this.norm1 = new nn.GroupNorm(4, out);
    this.conv2 = new nn.Conv2d(out, out, 3, { padding: 1 });
    this.norm2 = new nn.GroupNorm(4, out);
  }

  forward(x) {
    const y = this.norm1.forward(this.conv1.forward(x)).relu();
    return this.norm2.forward(this.conv2.forward(y)).relu();
  }
}

class UNet extends nn.Module {
  down1 = new Block(1, 8);
  down2 = new Block(8, 16);
  bottom = new Block(16, 16);
  up2 = new nn.ConvTranspose2d(16, 16, 2, { stride: 2 });
  join2 = new Block(32, 16);
  up1 = new nn.ConvTranspose2d(16, 8, 2, { stride: 2 });
  join1 = new Block(16, 8);
  head = new nn.Conv2d(8, 1, 1);
  pool = new nn.MaxPool2d(2);

  /** Images [B, 1, H, W] → logits [B, 1, H, W]. */
  forward(images) {
    const first = this.down1.forward(images);
    const second = this.down2.forward(this.pool.forward(first));
    const bottom = this.bottom.forward(this.pool.forward(second));
    const joined = this.join2.forward(this.up2.forward(bottom).concat(second, 1));
    return this.head.forward(this.join1.forward(this.up1.forward(joined).concat(first, 1)));
  }
}

/** Makes images of a disc on a striped ground, and their masks, [B, 1, 16, 16]; `first` is the index of the first image. */
function discs(first, { dark }) {
  const [images, masks] = [new Float32Array(BATCH * SIZE * SIZE), new Float32Array(BATCH * SIZE * SIZE)];
  for (let i = 0; i < images.length; i++) {
    const [image, y, x] = [first + Math.floor(i / SIZE ** 2), Math.floor(i / SIZE) % SIZE, i % SIZE];
    const [centreY, centreX, radius] = [4 + ((image * 7) % 9), 4 + ((image * 5) % 9), 2 + (image % 3)];
    const inside = (y - centreY) ** 2 + (x - centreX) ** 2 <= radius ** 2;
    const stripes = ((x * 3 + y * 5 + image * 2) % 8) / 16;
    const bright = inside ? 1 - stripes / 2 : stripes;
    images[i] = dark ? 1 - bright : bright;
    masks[i] = inside ? 1 : 0;
  }
  const shape = [BATCH, 1, SIZE, SIZE];
  return { images: tensor(images, { shape }), masks: tensor(masks, { shape }) };
}

/** Trains the parameters that require gradients; returns the loss of each step. */
async function train(model, { dark, steps, lr }) {
  const optimizer = new optim.AdamW(model.parameters({ trainable: true }), { lr });
  const losses = [];
  model.train();
  for (let step = 0; step < steps; step++) {
    const loss = scope(() => {
      const { images, masks } = discs(step * BATCH, { dark });
      const loss = nn.bceWithLogits(model.forward(images), masks);
      loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
      return loss;
    });
    losses.push(await loss.item());
    loss.dispose();
  }
  model.eval();
  return losses;
}

/** Intersection over union of the predicted and the true masks. */
function overlap(model, { dark }) {
  return scope(async () => {
    const { images, masks } = discs(1000, { dark });
    const found = noGrad(() => model.forward(images))
      .ge(0)
      .to("f32");
    const both = found.mul(masks).sum();
    const either = found.add(masks).sum().sub(both);
    return `${(100 * (await both.div(either).item())).toFixed(1)}%`;
  });
}

manualSeed(1);
const model = new UNet();
if (weights === undefined) {
  await train(model, { dark: false, steps: 60, lr: 1e-2 });
} else {
  model.loadStateDict(await safetensors.load(weights));
}
console.log(`overlap of bright discs ${await overlap(model, { dark: false })}`);
console.log(`overlap of dark discs ${await overlap(model, { dark: true })}`);

const targetModules = ["conv1", "conv2"];
if (adapter === undefined) await lora.inject(model, { r: 4, loraAlpha: 8, targetModules });
else await lora.loadAdapter(model, adapter, { trainable: true });
const losses = await train(model, { dark: true, steps: 60, lr: 2e-2 });
for (const [step, loss] of losses.entries()) console.log(`step ${step + 1}  loss ${loss.toFixed(7)}`);
console.log(`overlap of dark discs after adapting ${await overlap(model, { dark: true })}`);
await lora.saveAdapter(model, "adapter");
