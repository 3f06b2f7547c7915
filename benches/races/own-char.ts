/** A training step of a small character transformer, written with the public types; the counterpart of peer_char.py. */
import { arange, nn, optim, scope, type Tensor, tensor } from "../../src/index.js";
import { hashedIds } from "./step.js";
import { race } from "./turns.js";

const [V, C, H, T, B, LAYERS] = [65, 128, 4, 64, 16, 2];
/** Steps per turn, since a step takes a few milliseconds. */
const PASSES = 50;
const device = "cpu";

class Block extends nn.Module {
  norm1 = new nn.LayerNorm(C, { device });
  attention = new nn.MultiheadAttention(C, H, { batchFirst: true, device });
  norm2 = new nn.LayerNorm(C, { device });
  up = new nn.Linear(C, 4 * C, { device });
  down = new nn.Linear(4 * C, C, { device });

  forward(x: Tensor): Tensor {
    const normed = this.norm1.forward(x);
    const attended = x.add(this.attention.forward(normed, normed, normed, { isCausal: true }));
    return attended.add(this.down.forward(this.up.forward(this.norm2.forward(attended)).gelu()));
  }
}

class CharTransformer extends nn.Module {
  tokens = new nn.Embedding(V, C, { device });
  positions = new nn.Embedding(T, C, { device });
  blocks = Array.from({ length: LAYERS }, () => new Block());
  norm = new nn.LayerNorm(C, { device });
  head = new nn.Linear(C, V, { bias: false, device });

  forward(ids: Tensor): Tensor {
    let x = this.tokens.forward(ids).add(this.positions.forward(arange(ids.shape[1] as number, { device })));
    for (const block of this.blocks) x = block.forward(x);
    return this.head.forward(this.norm.forward(x));
  }
}

const model = new CharTransformer();
const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 });
const ids = hashedIds(B * (T + 1), V);
const [inputs, targets] = [0, 1].map((shift) => {
  const rows = Array.from({ length: B }, (_, b) => [
    ...ids.subarray(b * (T + 1) + shift, b * (T + 1) + shift + T),
  ]);
  return tensor(Int32Array.from(rows.flat()), { shape: [B, T], device });
}) as [Tensor, Tensor];

await race(async () => {
  let last = NaN;
  for (let pass = 0; pass < PASSES; pass++) {
    const loss = scope(() => {
      const of = model
        .forward(inputs)
        .reshape(B * T, V)
        .crossEntropy(targets.reshape(B * T));
      of.backward();
      optimizer.step();
      optimizer.zeroGrad();
      return of;
    });
    last = await loss.item();
    loss.dispose();
  }
  return { passes: PASSES, loss: last };
});
