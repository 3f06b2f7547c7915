/** A model of every kind of layer with its plain record, and the comparison of both. */
import { lora, nn, noGrad, scope, tensor, type Tensor } from "../../src/index.js";
import type { AnyLoRALayer } from "../../src/lora/layers/any-layer.js";
import {
  deltaOf,
  effective,
  kinds,
  output,
  type Kind,
  type Parts,
  type Recorded,
  type RecordedLayer,
} from "./record.js";

export type Layer = nn.Linear | nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d;

/** Layers by name, independent of each other. */
export class Bag extends nn.Module {
  readonly held = new nn.ModuleDict<nn.Module>();
  readonly rest = new nn.Linear(3, 2, { device: "cpu" });
  forward(): never {
    throw new Error("each layer is run by itself");
  }
  layer(name: string): Layer {
    return this.held.get(name) as Layer;
  }
}

export const pathOf = (name: string): string => `held.${name}`;

export const isLow = (layer: nn.Module): layer is nn.Module & AnyLoRALayer => layer instanceof lora.LoRALayer;

/** Random values that are exact in f32, so that small sums of them are exact, too. */
export class Values {
  constructor(private state: number) {}
  next(): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
    return ((this.state >>> 8) % 17) - 8;
  }
  array(size: number): Float32Array {
    return Float32Array.from({ length: size }, () => this.next() / 8);
  }
}

const device = { device: "cpu" } as const;
export const ALPHA = 3;

/** Returns a layer of a kind: plain, constructed by hand with rank `r`, or with rank 0. */
export function make(kind: Kind, as: "plain" | "hand" | "bare", r: number): Layer {
  const own = as === "hand" ? { r, loraAlpha: ALPHA, ...device } : device;
  const [a, b, ...kernel] = kind.shape as [number, number, ...number[]];
  const low = as !== "plain";
  if (kind.type === "embedding") return low ? new lora.Embedding(a, b, own) : new nn.Embedding(a, b, device);
  if (kind.enableLora !== undefined)
    return low
      ? new lora.MergedLinear(b, a, { ...own, enableLora: kind.enableLora })
      : new nn.Linear(b, a, device);
  if (kind.type === "linear") return low ? new lora.Linear(b, a, own) : new nn.Linear(b, a, device);
  const [Plain, Low] = (
    [
      [nn.Conv1d, lora.Conv1d],
      [nn.Conv2d, lora.Conv2d],
      [nn.Conv3d, lora.Conv3d],
    ] as const
  )[kernel.length - 1] as readonly [typeof nn.Conv1d, typeof lora.Conv1d];
  return low ? new Low(b, a, kernel, own) : new Plain(b, a, kernel, device);
}

export const kindOf = (name: string): Kind => kinds.find((kind) => kind.name === name) as Kind;

export async function values(one: Tensor): Promise<Float32Array> {
  return (await one.data()) as Float32Array;
}

/** Randomises both factors of an adapter; returns its resulting parts. */
export async function fillAdapter(
  layer: AnyLoRALayer,
  kind: Kind,
  name: string,
  from: Values,
): Promise<Parts> {
  const { loraA, loraB, scaling, magnitude } = layer.findAdapter(name);
  const [a, b] = [from.array(loraA.size), from.array(loraB.size)];
  noGrad(() =>
    scope(() => {
      loraA.copy(tensor(a, { shape: loraA.shape, ...device }));
      loraB.copy(tensor(b, { shape: loraB.shape, ...device }));
    }),
  );
  const delta = deltaOf(kind, a, b, { a: loraA.shape, b: loraB.shape }, scaling);
  return { delta, magnitude: magnitude && (await values(magnitude)) };
}

/** Puts a new layer into the model; returns its record. */
export async function put(
  bag: Bag,
  kind: Kind,
  as: "plain" | "hand" | "bare",
  r: number,
  from: Values,
): Promise<RecordedLayer> {
  const layer = make(kind, as, r);
  noGrad(() =>
    scope(() => {
      for (const one of [layer.weight, "bias" in layer ? layer.bias : null])
        one?.copy(tensor(from.array(one.size), { shape: one.shape, ...device }));
    }),
  );
  bag.held.set(kind.name, layer);
  const bias = "bias" in layer && layer.bias !== null ? await values(layer.bias) : null;
  const record: RecordedLayer = {
    weight: await values(layer.weight),
    bias,
    weightGrad: as !== "hand",
    biasGrad: bias !== null,
    adapters: new Map(),
    active: [],
    merged: false,
    mergeWeights: as !== "plain",
    as,
  };
  if (as === "hand" && isLow(layer)) {
    record.adapters.set("default", {
      ...(await fillAdapter(layer, kind, "default", from)),
      trainable: true,
    });
    record.active = [{ name: "default", weight: 1 }];
  }
  return record;
}

const inputs = new Map(
  kinds.map((kind): [string, Float32Array | Int32Array] => {
    const from = new Values(7);
    const size = kind.input.reduce((n, d) => n * d, 1);
    if (kind.type === "embedding")
      return [kind.name, Int32Array.from({ length: size }, (_, i) => (i * 5) % (kind.shape[0] as number))];
    return [kind.name, from.array(size)];
  }),
);

/** Returns the output of a layer of the model for its input. */
async function run(layer: Layer, kind: Kind): Promise<Float32Array> {
  const shape = kind.type === "conv" ? [1, ...kind.input] : kind.input;
  const out = noGrad(() =>
    scope(() => {
      const input = tensor(inputs.get(kind.name) as Float32Array, { shape, ...device });
      return (layer.forward as (x: Tensor) => Tensor).call(layer, input);
    }),
  );
  const data = await values(out);
  out.dispose();
  return data;
}

/** Returns the first layer whose output differs from the record; with `off`, as if no adapter were active. */
export async function outputsDiffer(bag: Bag, record: Recorded, off = false): Promise<string | undefined> {
  // Awaits the values of all layers together, since reading back from the device takes longer than computing.
  const ofLayer = async ([name, layer]: [string, RecordedLayer]): Promise<string | undefined> => {
    const kind = kindOf(name);
    const { weight, size } = effective(kind, layer, off ? [] : undefined);
    const expected = output(kind, weight, layer.bias, inputs.get(name) as Float32Array);
    const given = await run(bag.layer(name), kind);
    // f32: sums of at most 9 products of values up to 1 by weights up to `size`, each step rounded by 6e-8.
    const most = 1e-5 * (1 + size) * 9;
    const bad = expected.findIndex((value, i) => !(Math.abs(value - (given[i] as number)) <= most));
    if (bad >= 0 || given.length !== expected.length)
      return `${name}: output ${bad} is ${given[bad]}, not ${expected[bad]}${off ? " without adapters" : ""}`;
    return undefined;
  };
  return (await Promise.all([...record].map(ofLayer))).find((one) => one !== undefined);
}

/** Returns the first difference between the model and its record. */
export async function differs(bag: Bag, record: Recorded): Promise<string | undefined> {
  const names = new Set([...record.values()].flatMap(({ adapters }) => [...adapters.keys()]));
  const same = (what: string, given: unknown, expected: unknown): string | undefined =>
    JSON.stringify(given) === JSON.stringify(expected)
      ? undefined
      : `${what} is ${JSON.stringify(given)}, not ${JSON.stringify(expected)}`;
  const sorted = (of: Iterable<string>): string[] => [...of].sort();
  const state = lora.status(bag);
  const low = [...record.values()].filter(({ adapters }) => adapters.size > 0);
  const merged = low.filter((one) => one.merged).length;
  const found = [
    same("adapters", sorted(lora.adapters(bag)), sorted(names)),
    same(
      "status.active",
      sorted(state.active.map(({ name }) => name)),
      sorted(new Set([...record.values()].flatMap(({ active }) => active.map(({ name }) => name)))),
    ),
    same("status.merged", state.merged, merged === 0 ? false : merged === low.length ? true : "some"),
    same("status.layers", state.layers, low.length),
    same(
      "report",
      sorted((await lora.report(bag)).map(({ path, adapter }) => `${path} ${adapter}`)),
      sorted(
        [...record].flatMap(([name, { adapters }]) =>
          [...adapters.keys()].map((a) => `${pathOf(name)} ${a}`),
        ),
      ),
    ),
  ];
  const ofLayer = async ([name, layer]: [string, RecordedLayer]): Promise<(string | undefined)[]> => {
    const module = bag.layer(name);
    const kind = kindOf(name);
    const adapted = isLow(module) ? module : undefined;
    const base = adapted?.baseWeight ?? module.weight;
    const bias = adapted?.baseBias ?? ("bias" in module ? module.bias : null);
    const plain = { linear: "Linear", embedding: "Embedding", conv: `Conv${kind.shape.length - 2}d` }[
      kind.type
    ];
    const wrong = [
      same(`${name} is low-rank`, isLow(module), layer.as !== "plain"),
      same(
        `${name}: class`,
        module.constructor.name,
        kind.enableLora && isLow(module) ? module.constructor.name : plain,
      ),
      same(`${name}: adapters`, sorted(adapted?.adapters.keys() ?? []), sorted(layer.adapters.keys())),
      same(`${name}: active`, adapted?.active ?? [], layer.active),
      same(`${name}: merged`, adapted?.merged ?? false, layer.merged),
      same(`${name}: training`, module.training, bag.training),
      same(`${name}: weight asks`, base.requiresGrad, layer.weightGrad),
      same(`${name}: bias asks`, bias?.requiresGrad ?? false, layer.biasGrad),
      same(`${name}: base's bits`, [...(await values(base))], [...layer.weight]),
      same(
        `${name}: bias's bits`,
        bias === null ? null : [...(await values(bias))],
        layer.bias && [...layer.bias],
      ),
    ];
    for (const [adapter, { trainable, magnitude }] of layer.adapters) {
      const own = adapted?.adapters.get(adapter);
      const asks = [own?.loraA.requiresGrad, own?.loraB.requiresGrad, own?.magnitude?.requiresGrad];
      wrong.push(
        same(`${name}: ${adapter} asks`, asks, [trainable, trainable, magnitude && trainable]),
        same(
          `${name}: magnitudes of ${adapter}`,
          own?.magnitude && [...(await values(own.magnitude))],
          magnitude && [...magnitude],
        ),
      );
    }
    return wrong;
  };
  found.push(...(await Promise.all([...record].map(ofLayer))).flat());
  return found.find((one) => one !== undefined) ?? outputsDiffer(bag, record);
}

const numbers = new WeakMap<object, number>();
let last = 0;
function numberOf(one: object | null | undefined): number {
  if (!one) return 0;
  const known = numbers.get(one);
  if (known !== undefined) return known;
  numbers.set(one, ++last);
  return last;
}

/** Returns everything that a refused call must not change: the identity of objects, bits, flags. */
export async function fingerprint(bag: Bag): Promise<string> {
  const ofModule = async ([path, module]: [string, nn.Module]): Promise<unknown[]> => {
    const all: unknown[] = [];
    const low = isLow(module) ? module : undefined;
    all.push([path, numberOf(module), module.training, Object.keys(lora.loraStateDict(module, "all"))]);
    for (const [key, value] of Object.entries(module))
      if (value !== null && typeof value === "object" && "requiresGrad" in value)
        all.push([key, numberOf(value), value.requiresGrad, [...(await values(value as Tensor))]]);
    if (low === undefined) return all;
    all.push([low.active, low.merged, numberOf(low.unmergedWeight?.tensor), numberOf(low.replaced?.module)]);
    for (const [name, adapter] of low.adapters) {
      const { loraA, loraB, magnitude, ...rest } = adapter;
      all.push([name, numberOf(adapter), rest]);
      for (const one of [loraA, loraB, ...(magnitude ? [magnitude] : [])])
        all.push([numberOf(one), one.requiresGrad, [...(await values(one))]]);
    }
    return all;
  };
  const modules = await Promise.all([...bag.namedModules()].map(ofModule));
  return JSON.stringify([lora.adapters(bag), lora.status(bag), ...modules]);
}
