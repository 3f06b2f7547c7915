/** What random calls on a model work on, and what each should do. */
import type { Parts, Recorded, RecordedLayer } from "../record.js";
import { isLow, type Bag, type Values } from "../recorded-model.js";

/** What a call is drawn from: each takes of it what it needs. */
export interface Draw {
  call: string;
  name: string;
  other: string;
  layers: string[];
  weight: number;
  on: boolean;
  r: number;
  /** Whether an adapter that `inject` makes has magnitudes. */
  dora: boolean;
  bias: "none" | "all" | "lora_only";
  slot: number;
  /** Which of those there are is meant, mostly; below 0 whatever the others say. */
  pick: number;
}

/** An adapter on disk. */
export interface Slot {
  path: string;
  /** By layer. */
  parts: Map<string, Parts>;
  /** Whether it is a file of loralib's. */
  loralib: boolean;
}

export interface World {
  bag: Bag;
  record: Recorded;
  values: Values;
  slots: Map<number, Slot>;
  /** Whether biases are trained in place: a file holds them then, and gives an adapter copies of its own. */
  marked: boolean;
  made: { dispose(): void }[];
}

/** What a call should do: change the record, or be refused with one of these codes; undefined where it does not apply. */
export type Expected = (() => void | Promise<void>) | string[] | undefined;

/** One call, and what it should do. */
export type Call = (world: World, draw: Draw) => { act: () => unknown; expected: Expected };

export const holders = ({ record }: World, name: string): [string, RecordedLayer][] =>
  [...record].filter(([, layer]) => layer.adapters.has(name));
export const known = (world: World, name: string): boolean => holders(world, name).length > 0;
/** What adapter `name` is, by layer. */
export const partsOf = (world: World, name: string): Map<string, Parts> =>
  new Map(
    holders(world, name).map(([at, { adapters }]) => {
      const { delta, magnitude } = adapters.get(name) as Parts;
      return [at, { delta, magnitude }];
    }),
  );
export const hasMagnitudes = (world: World, name: string): boolean =>
  holders(world, name).some(([, { adapters }]) => adapters.get(name)?.magnitude !== undefined);
export const empty = (world: World): boolean =>
  [...world.record.values()].every(({ adapters }) => adapters.size === 0);

export function frozen({ record }: World): void {
  for (const layer of record.values()) Object.assign(layer, { weightGrad: false, biasGrad: false });
}

export function lowLayer({ bag }: World, name: string) {
  const layer = bag.layer(name);
  if (!isLow(layer)) throw new Error(`${name} is no low-rank layer`);
  return layer;
}
