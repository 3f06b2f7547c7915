/** The state of a random sequence of calls, and the expected result of each call. */
import type { Parts, Recorded, RecordedLayer } from "../record.js";
import { isLow, type Bag, type Values } from "../recorded-model.js";

/** The random arguments of a call; each call uses those that it needs. */
export interface Draw {
  call: string;
  name: string;
  other: string;
  layers: string[];
  weight: number;
  on: boolean;
  r: number;
  /** Whether an adapter that `inject` creates has magnitudes. */
  dora: boolean;
  bias: "none" | "all" | "lora_only";
  slot: number;
  /** Mostly the index of an existing adapter; below 0 the other fields decide. */
  pick: number;
}

/** An adapter on disk. */
export interface Slot {
  path: string;
  /** By layer. */
  parts: Map<string, Parts>;
  /** Whether the file is in loralib's format. */
  loralib: boolean;
}

export interface World {
  bag: Bag;
  record: Recorded;
  values: Values;
  slots: Map<number, Slot>;
  /** Whether biases are trained in place: a file then contains them, and gives a loaded adapter its own copies. */
  marked: boolean;
  made: { dispose(): void }[];
}

/**
 * The expected result of a call: a change of the record, or a refusal with one of these codes; undefined if the
 * call does not apply.
 */
export type Expected = (() => void | Promise<void>) | string[] | undefined;

/** A call and its expected result. */
export type Call = (world: World, draw: Draw) => { act: () => unknown; expected: Expected };

export const holders = ({ record }: World, name: string): [string, RecordedLayer][] =>
  [...record].filter(([, layer]) => layer.adapters.has(name));
export const known = (world: World, name: string): boolean => holders(world, name).length > 0;
/** Returns the parts of adapter `name`, by layer. */
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
