/** Adapters combined as in PEFT: A and B are compared, or for an SVD their product. 1e-5 as in llama.test.ts. */
import { join } from "node:path";

import test from "ava";
import { lora, nn, noGrad, scope, tensor, type Tensor } from "../../src/index.js";
import { combineValues, type Arithmetic } from "../../src/lora/operations/task-arithmetic.js";
import { testDevices, type TestDevice } from "../devices.js";
import { hashed, words } from "../hashed.js";
import { error, goldens, onHost } from "./goldens.js";

const golden = await onHost(join(goldens, "peft", "weighted.safetensors"));

class Model extends nn.Module {
  emb: nn.Embedding;
  lin: nn.Linear;
  head: nn.Linear;

  constructor(device: TestDevice) {
    super();
    this.emb = new nn.Embedding(11, 6).to(device);
    this.lin = new nn.Linear(6, 10).to(device);
    this.head = new nn.Linear(10, 5).to(device);
  }

  forward(ids: Tensor): Tensor {
    return this.head.forward(this.lin.forward(this.emb.forward(ids)));
  }
}

const PATHS = ["emb", "lin", "head"] as const;
const ADAPTERS: Record<string, lora.InjectOptions> = {
  a: { r: 3, loraAlpha: 6, targetModules: ["emb", "lin", "head"] },
  b: { r: 3, loraAlpha: 2, targetModules: ["lin", "head"] },
  c: { r: 2, loraAlpha: 5, targetModules: ["emb", "lin"] },
};
const WEIGHTS: Record<string, number> = { a: 0.7, b: -1.3, c: 1.6 };
const density = 0.4;

/** Returns the values of a part of a layer's adapter. */
function filled(adapter: string, path: string, part: "A" | "B", shape: readonly number[]): Float32Array {
  const name = path === "emb" ? `lora_embedding_${part}` : `lora_${part}.weight`;
  return hashed(`${adapter}.${path}.${name}`, shape);
}

async function adapted(device: TestDevice): Promise<{ model: Model; layers: Map<string, lora.Linear> }> {
  const model = new Model(device);
  for (const [name, options] of Object.entries(ADAPTERS)) await lora.inject(model, { ...options, name });
  const layers = new Map(PATHS.map((path) => [path, model[path] as unknown as lora.Linear]));
  noGrad(() =>
    scope(() => {
      for (const [path, layer] of layers) {
        for (const [name, { loraA, loraB }] of layer.adapters) {
          for (const [part, one] of [
            ["A", loraA],
            ["B", loraB],
          ] as const)
            one.copy(tensor(filled(name, path, part, one.shape), { shape: one.shape, device }));
        }
      }
    }),
  );
  return { model, layers };
}

const some = (names: string): Record<string, number> =>
  Object.fromEntries([...names].map((name) => [name, WEIGHTS[name] as number]));

const cases: Record<string, [adapters: string, lora.WeightedAdapterOptions]> = {
  cat: ["abc", { combination: "cat" }],
  ties: ["ab", { combination: "ties", density }],
  ties_frequency: ["ab", { combination: "ties", density, majoritySign: "frequency" }],
  magnitude_prune: ["ab", { combination: "magnitude_prune", density }],
};

const products: Record<string, [adapters: string, lora.WeightedAdapterOptions]> = {
  svd: ["abc", { combination: "svd" }],
  svd_rank_2: ["ab", { combination: "svd", rank: 2 }],
  ties_svd: ["ab", { combination: "ties_svd", density }],
  magnitude_prune_svd: ["ab", { combination: "magnitude_prune_svd", density }],
};

for (const device of testDevices()) {
  for (const [name, [adapters, options]] of Object.entries(cases)) {
    test(`${name} on ${device} is PEFT's`, async (t) => {
      const { model, layers } = await adapted(device);
      await lora.addWeightedAdapter(model, "new", some(adapters), options);
      let compared = 0;
      for (const [path, layer] of layers) {
        const { loraA, loraB } = layer.adapters.get("new") as lora.Adapter;
        for (const [part, one] of [
          ["A", loraA],
          ["B", loraB],
        ] as const) {
          const key = `${name}.${path}.${path === "emb" ? `lora_embedding_${part}` : `lora_${part}.weight`}`;
          // If some adapters lack a layer, PEFT pads it with zeros up to the rank of the others.
          const [expected, values] = [golden[key]?.data ?? [], await one.data()];
          const [r, rank] = [
            layer.adapters.get("new")?.r ?? 0,
            golden[key]?.shape[part === "A" ? 0 : 1] ?? 0,
          ];
          const kept = Array.from(expected).filter(
            (_, i) => (part === "A" ? i / (expected.length / rank) : i % rank) < r,
          );
          t.true(error(values as Float32Array, kept) < 1e-5, key);
          compared++;
        }
      }
      t.is(compared, 6);
      model.dispose();
    });
  }

  for (const [name, [adapters, options]] of Object.entries(products)) {
    test(`${name} on ${device} has PEFT's product`, async (t) => {
      const { model, layers } = await adapted(device);
      await lora.addWeightedAdapter(model, "new", some(adapters), options);
      for (const [path, layer] of layers) {
        const delta = await noGrad(() => layer.deltaWeight("new")).data();
        const expected = golden[`${name}.${path}.delta`]?.data ?? [];
        t.true(error(delta as Float32Array, expected) < 1e-5, path);
        t.is(layer.adapters.get("new")?.r, options.rank ?? 3);
      }
      model.dispose();
    });
  }
}

test("dare with PEFT's masks is PEFT's", (t) => {
  for (const kind of ["dare_linear", "dare_ties"] as const satisfies readonly Arithmetic[]) {
    let drawn = 0;
    const draw = (_: number, size: number): Float32Array =>
      Float32Array.from(words(`${kind}.${drawn++}`, size), (word) => (word >>> 8) / 2 ** 24);
    for (const path of PATHS) {
      const names = [..."ab"].filter((name) => (ADAPTERS[name]?.targetModules ?? []).includes(path));
      const scales = names.map((name) => {
        const { r = 0, loraAlpha = 0 } = ADAPTERS[name] as lora.InjectOptions;
        return ((WEIGHTS[name] as number) * loraAlpha) / r;
      });
      for (const part of ["A", "B"] as const) {
        const key = `${kind}.${path}.${path === "emb" ? `lora_embedding_${part}` : `lora_${part}.weight`}`;
        const { data, shape } = golden[key] as { data: Float32Array; shape: number[] };
        const weights = scales.map((s) => Math.sqrt(Math.abs(s)) * (part === "A" ? Math.sign(s) : 1));
        const tensors = names.map((name) => filled(name, path, part, shape));
        const options = { density, majoritySign: "total", draw } as const;
        t.true(error(combineValues(kind, tensors, weights, options), data) < 1e-5, key);
      }
    }
    t.is(drawn, 10);
  }
});
