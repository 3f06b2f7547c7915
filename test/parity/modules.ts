/** The small models of peft_modules.py, with parameters filled by their names, and their inputs. */
import { nn, noGrad, tensor, type Tensor } from "../../src/index.js";
import type { TestDevice } from "../devices.js";
import { hashed, words } from "../hashed.js";

/** Ids [2, 8] through an embedding, a transposed and a plain linear layer, and a classifier. */
export class Text extends nn.Module {
  emb = new nn.Embedding(11, 6);
  proj = new nn.Linear(6, 8, { fanInFanOut: true });
  lin = new nn.Linear(8, 10);
  classifier = new nn.Linear(10, 5);

  forward(ids: Tensor): Tensor {
    const hidden = this.proj.forward(this.emb.forward(ids)).relu();
    return this.classifier.forward(this.lin.forward(hidden).relu());
  }
}

/** Values [2, 4, 9] through convolutions of one, two and three dimensions. */
export class Image extends nn.Module {
  conv1 = new nn.Conv1d(4, 6, 3, { padding: 1 });
  conv2 = new nn.Conv2d(6, 4, [3, 2], { stride: [1, 2], padding: [1, 1] });
  conv3 = new nn.Conv3d(4, 2, [1, 3, 2], { padding: [0, 1, 0] });
  point = new nn.Conv2d(2, 3, 1);
  classifier = new nn.Linear(3, 5);

  forward(values: Tensor): Tensor {
    let x = this.conv1.forward(values).relu().reshape(2, 6, 3, 3);
    x = this.conv2.forward(x).relu();
    x = this.conv3.forward(x.reshape(2, 4, 1, 3, 2)).relu();
    x = this.point.forward(x.reshape(2, 2, 3, 1)).relu();
    return this.classifier.forward(x.reshape(2, 3, 3).mean(-1));
  }
}

export interface Toy extends nn.Module {
  forward(input: Tensor): Tensor;
}

/** Returns a model by its name, on a device, with weights from a hash of `name.parameter`. */
export function toy(name: string, device: TestDevice): { model: Toy; input: Tensor } {
  const drawn = words(`${name}.input`, name === "text" ? 16 : 72);
  const input =
    name === "text"
      ? tensor(
          Int32Array.from(drawn, (word) => (word >>> 8) % 11),
          { shape: [2, 8], device },
        )
      : tensor(
          Float32Array.from(drawn, (word) => ((word >>> 8) / 2 ** 24 - 0.5) * 2),
          {
            shape: [2, 4, 9],
            device,
          },
        );
  const model = name === "text" ? new Text() : new Image();
  noGrad(() => {
    for (const [key, one] of Object.entries(model.stateDict())) {
      const values = tensor(hashed(`${name}.${key}`, one.shape), { shape: one.shape, device: one.device });
      one.copy(values);
      values.dispose();
    }
  });
  model.to(device).eval();
  return { model, input };
}
