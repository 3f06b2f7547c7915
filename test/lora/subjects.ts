/** Every class of low-rank layer, with sizes that are no multiples of a tile. */
import { lora, nn, randn, tensor, type Tensor } from "../../src/index.js";
import type { TestDevice } from "../devices.js";

export type Base = nn.Linear | nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d;
export type Layer = lora.Linear | lora.Embedding | lora.Conv1d | lora.Conv2d | lora.Conv3d;

export interface Subject {
  name: string;
  /** Returns the base layer for an adapter. */
  base(device: TestDevice): Base;
  /** Returns the low-rank layer over a base, with an adapter. */
  wrap(base: Base, r: number, loraAlpha: number): Layer;
  /** Returns the layer with rank 0. */
  bare(device: TestDevice): Layer;
  input(device: TestDevice): Tensor;
  /** Its class in addition to LoRALayer. */
  kind: abstract new (...args: never[]) => nn.Module;
  /** The randomly initialised factor of a fresh adapter; the other is zero. */
  drawn: "A" | "B";
  /** Options of a fresh adapter other than rank and alpha. */
  fresh?: { useDora?: boolean; loraBias?: boolean; useRslora?: boolean };
}

const slices = [true, false, true];

function linear(name: string, fanInFanOut: boolean): Subject {
  return {
    name,
    base: (device) => new nn.Linear(13, 7, { device, fanInFanOut }),
    wrap: (base, r, loraAlpha) => lora.Linear.fromBase(base as nn.Linear, { r, loraAlpha }),
    bare: (device) => new lora.Linear(5, 3, { device, fanInFanOut }),
    input: (device) => randn([5, 13], { device }),
    kind: nn.Linear,
    drawn: "A",
  };
}

function merged(name: string, fanInFanOut: boolean): Subject {
  return {
    ...linear(name, fanInFanOut),
    base: (device) => new lora.MergedLinear(13, 9, { device, fanInFanOut, enableLora: slices }),
    wrap: (base, r, loraAlpha) =>
      lora.MergedLinear.fromBase(base as nn.Linear, { r, loraAlpha, enableLora: slices }),
    bare: (device) => new lora.MergedLinear(5, 3, { device, fanInFanOut, enableLora: slices }),
    kind: nn.Linear,
  };
}

type Fresh = NonNullable<Subject["fresh"]>;

function linearWith(name: string, fresh: Fresh): Subject {
  const wrap: Subject["wrap"] = (base, r, loraAlpha) =>
    lora.Linear.fromBase(base as nn.Linear, { r, loraAlpha, ...fresh });
  return { ...linear(name, false), wrap, fresh };
}

function embedding(name: string, fresh: Fresh): Subject {
  return {
    name,
    base: (device) => new nn.Embedding(11, 7, { device }),
    wrap: (base, r, loraAlpha) => lora.Embedding.fromBase(base as nn.Embedding, { r, loraAlpha, ...fresh }),
    bare: (device) => new lora.Embedding(5, 3, { device }),
    input: (device) => tensor(Int32Array.of(3, 0, 10, 3), { shape: [2, 2], device }),
    kind: nn.Embedding,
    drawn: "B",
    fresh,
  };
}

type Geometry = Omit<lora.LoRAConvOptions, "device" | "r">;

/** A convolution of 4 channels to 6, over an input of `size`. */
function conv(
  name: string,
  [Base, Lora]:
    | [typeof nn.Conv1d, typeof lora.Conv1d]
    | [typeof nn.Conv2d, typeof lora.Conv2d]
    | [typeof nn.Conv3d, typeof lora.Conv3d],
  size: number[],
  kernel: number[],
  geometry: Geometry,
  fresh: Fresh = {},
): Subject {
  return {
    name,
    base: (device) => new Base(4, 6, kernel, { device, ...geometry }),
    wrap: (base, r, loraAlpha) => Lora.fromBase(base as nn.Conv1d, { r, loraAlpha, ...fresh }),
    bare: (device) => new Lora(4, 6, kernel, { device, ...geometry }),
    input: (device) => randn([3, 4, ...size], { device }),
    kind: Base,
    drawn: "A",
    fresh,
  };
}

export const subjects: Subject[] = [
  linear("Linear", false),
  linear("Linear, fanInFanOut", true),
  merged("MergedLinear", false),
  merged("MergedLinear, fanInFanOut", true),
  embedding("Embedding", {}),
  linearWith("Linear, DoRA", { useDora: true }),
  linearWith("Linear, bias", { loraBias: true }),
  embedding("Embedding, DoRA", { useDora: true }),
  conv("Conv1d", [nn.Conv1d, lora.Conv1d], [9], [3], { padding: 1, stride: 2 }),
  conv("Conv2d", [nn.Conv2d, lora.Conv2d], [6, 5], [3, 2], { dilation: [2, 1], padding: "same" }),
  conv("Conv2d, groups", [nn.Conv2d, lora.Conv2d], [5, 5], [3, 3], { groups: 2 }),
  conv("Conv3d", [nn.Conv3d, lora.Conv3d], [4, 3, 4], [2, 1, 3], { padding: [1, 0, 1] }),
  conv("Conv2d, DoRA", [nn.Conv2d, lora.Conv2d], [5, 4], [3, 3], { padding: 1 }, { useDora: true }),
];
