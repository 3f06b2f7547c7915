/** Models as a user writes them, with the package's public API alone: the same as in own_models.py. */
import { arange, nn, type Device, type Tensor } from "../../src/index.js";

export const [CLASSES, VOCABULARY, BATCH, TIME] = [5, 23, 4, 13];

export interface Options {
  device: Device;
}

/** Convolutions, batch norms and pooling, for images [B, 2, 8, 8]; returns [B, classes]. */
export class CNN extends nn.Module {
  features: nn.Sequential;
  head: nn.Linear;

  constructor({ device }: Options) {
    super();
    this.features = new nn.Sequential(
      new nn.Conv2d(2, 6, 3, { padding: 1, device }),
      new nn.BatchNorm2d(6, { device }),
      new nn.ReLU(),
      new nn.MaxPool2d(2),
      new nn.Conv2d(6, 9, 3, { stride: 2, padding: 1, bias: false, device }),
      new nn.BatchNorm2d(9, { device }),
      new nn.ReLU(),
      new nn.Flatten(),
    );
    this.head = new nn.Linear(9 * 2 * 2, CLASSES, { device });
  }

  forward(x: Tensor): Tensor {
    return this.head.forward(this.features.forward(x));
  }
}

class Block extends nn.Module {
  ln1: nn.LayerNorm;
  attention: nn.MultiheadAttention;
  ln2: nn.LayerNorm;
  mlp: nn.Sequential;

  constructor(channels: number, heads: number, { device }: Options) {
    super();
    this.ln1 = new nn.LayerNorm(channels, { device });
    this.attention = new nn.MultiheadAttention(channels, heads, { batchFirst: true, device });
    this.ln2 = new nn.LayerNorm(channels, { device });
    this.mlp = new nn.Sequential(
      new nn.Linear(channels, 4 * channels, { device }),
      new nn.GELU(),
      new nn.Linear(4 * channels, channels, { device }),
    );
  }

  forward(x: Tensor): Tensor {
    const y = this.ln1.forward(x);
    const z = x.add(this.attention.forward(y, y, y, { isCausal: true }));
    return z.add(this.mlp.forward(this.ln2.forward(z)));
  }
}

/** A causal transformer over ids [B, T]; returns [B, T, V]. */
export class CharTransformer extends nn.Module {
  tokens: nn.Embedding;
  positions: nn.Embedding;
  blocks: nn.ModuleList<Block>;
  norm: nn.LayerNorm;
  head: nn.Linear;

  constructor(options: Options, channels = 16, heads = 2, layers = 2) {
    super();
    this.tokens = new nn.Embedding(VOCABULARY, channels, options);
    this.positions = new nn.Embedding(TIME, channels, options);
    this.blocks = new nn.ModuleList(
      Array.from({ length: layers }, () => new Block(channels, heads, options)),
    );
    this.norm = new nn.LayerNorm(channels, options);
    this.head = new nn.Linear(channels, VOCABULARY, { bias: false, ...options });
  }

  forward(ids: Tensor): Tensor {
    const places = arange(ids.shape[1] as number, { device: ids.device });
    let x = this.tokens.forward(ids).add(this.positions.forward(places));
    for (const block of this.blocks) x = block.forward(x);
    return this.head.forward(this.norm.forward(x));
  }
}

/** A language model over ids [B, T]; returns [B, T, V]. */
export class LSTMLanguageModel extends nn.Module {
  tokens: nn.Embedding;
  lstm: nn.LSTM;
  head: nn.Linear;

  constructor(options: Options, channels = 12, hidden = 17) {
    super();
    this.tokens = new nn.Embedding(VOCABULARY, channels, options);
    this.lstm = new nn.LSTM(channels, hidden, { numLayers: 2, batchFirst: true, ...options });
    this.head = new nn.Linear(hidden, VOCABULARY, options);
  }

  forward(ids: Tensor): Tensor {
    const [output] = this.lstm.forward(this.tokens.forward(ids));
    return this.head.forward(output);
  }
}
