// A user-defined model: trained on two spirals, then adapted to rotated spirals with a few low-rank weights.
import { lora, manualSeed, nn, noGrad, optim, rand, safetensors, scope, tensor, Trainer } from "lowrank";

class Spirals extends nn.Module {
  first = new nn.Linear(2, 64);
  second = new nn.Linear(64, 64);
  head = new nn.Linear(64, 2);

  forward(x) {
    return this.head.forward(this.second.forward(this.first.forward(x).tanh()).tanh());
  }
}

/** Makes points [n, 2] of two interleaved spirals, rotated by an angle, and the spiral of each point. */
async function spirals(n, angle) {
  const drawn = rand([n]);
  const along = await drawn.data();
  drawn.dispose();
  const points = new Float32Array(2 * n);
  const labels = Int32Array.from(along, (_, i) => i % 2);
  for (const [i, t] of along.entries()) {
    const turn = 1.5 * Math.PI * t + angle + (i % 2) * Math.PI;
    points.set([t * Math.cos(turn), t * Math.sin(turn)], 2 * i);
  }
  return { x: tensor(points, { shape: [n, 2] }), y: tensor(labels) };
}

/** The fraction of points assigned to the right spiral. */
function accuracy(model, { x, y }) {
  return scope(async () => {
    const right = noGrad(() => model.forward(x).argmax(1).eq(y).to("f32").mean());
    return `${(100 * (await right.item())).toFixed(1)}%`;
  });
}

/** Trains the parameters that require gradients. */
async function train(model, batch, steps, lr) {
  const run = new Trainer({
    model,
    data: () => [batch],
    loss: (m, { x, y }) => m.forward(x).crossEntropy(y),
    optimizer: new optim.AdamW(model.parameters({ trainable: true }), { lr }),
    schedule: optim.schedule.cosine({ warmup: 10, total: steps }),
    steps,
    release: false,
  });
  return (await run.result).loss;
}

manualSeed(1);
const model = new Spirals();
const plain = await spirals(512, 0);
const turned = await spirals(512, 1);

await train(model, plain, 400, 1e-2);
console.log(
  `trained on the spirals: ${await accuracy(model, plain)}, turned ${await accuracy(model, turned)}`,
);
await safetensors.save("spirals.safetensors", model.stateDict());

const { trainable, total } = await lora.inject(model, {
  r: 4,
  loraAlpha: 8,
  targetModules: ["first", "second"],
});
await train(model, turned, 300, 2e-2);
console.log(`adapted by ${trainable} of ${total} weights: turned ${await accuracy(model, turned)}`);
await lora.saveAdapter(model, "turned");

lora.setAdapter(model, []);
console.log(`without the adapter: the spirals ${await accuracy(model, plain)}`);
lora.setAdapter(model, "default");
await lora.mergeAndUnload(model);
console.log(`merged into the weights: turned ${await accuracy(model, turned)}`);
