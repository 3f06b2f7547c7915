/** The small models of peft_modules.py, filled by their names, and what they are given. */
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

export interface Toy extends nn.Module {
  forward(input: Tensor): Tensor;
}

/** A model by its name, on a device, with weights of a hash of `name.parameter`. */
export function toy(name: string, device: TestDevice): { model: Toy; input: Tensor } {
  const ids = Int32Array.from(words("text.input", 16), (word) => (word >>> 8) % 11);
  const input = tensor(ids, { shape: [2, 8], device });
  const model = new Text();
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
