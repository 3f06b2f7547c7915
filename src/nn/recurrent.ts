/** The common part of LSTM and GRU: layers, directions, and the loop over time. */
import { checkFlag, checkProbability, checkWhole } from "../arguments/check.js";
import { drawUniform, zeros } from "../tensor/create.js";
import type { Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import { session } from "../native/binding.js";
import { isTraining } from "../tensor/scope.js";
import { recordOp, makeParameter, type Tensor } from "../tensor/tensor.js";
import { checkInput, refuseMismatch, checkValues } from "./inputs.js";
import { Module } from "./module.js";

/** The options of a recurrent layer. */
export interface RecurrentOptions {
  /** Number of layers, each over the outputs of the one before; 1 by default. */
  numLayers?: number | undefined;
  /** Whether there are biases, two per layer as in PyTorch; true by default. */
  bias?: boolean | undefined;
  /** Whether tensors are [B, T, C] instead of [T, B, C]; false by default. */
  batchFirst?: boolean | undefined;
  /** Probability of dropping outputs between layers in training; 0 by default. */
  dropout?: number | undefined;
  /**
   * Whether a second direction runs backwards, with outputs concatenated to the first direction's. False by default.
   */
  bidirectional?: boolean | undefined;
  /** The device of the parameters; the default device if omitted. */
  device?: Device | undefined;
}

export const RECURRENT_OPTIONS = [
  "numLayers",
  "bias",
  "batchFirst",
  "dropout",
  "bidirectional",
  "device",
] as const;

/** The tensors of one direction of one layer. */
export interface DirectionWeights {
  weightIh: Tensor;
  weightHh: Tensor;
  biasIh: Tensor | undefined;
  biasHh: Tensor | undefined;
  /** The projection of an LSTM with `projSize`. */
  weightHr: Tensor | undefined;
}

/** The cell of a kind of recurrent layer. */
export interface Cell {
  /** The input part of the gates for all times at once: [T, B, G·H] from x [T, B, I]. */
  project(x: Tensor, weights: DirectionWeights): Tensor;
  /** The state after one time step; its first part is the output. `projected` is [B, G·H]. */
  step(projected: Tensor, state: readonly Tensor[], weights: DirectionWeights): Tensor[];
}

/** x·Wᵀ + b. */
export function computeAffine(x: Tensor, weight: Tensor, bias: Tensor | undefined): Tensor {
  return recordOp(() => session().linear(x.id, weight.id, bias?.id, false));
}

/**
 * Recurrent layers. Parameters start as U(±1/√H) and have PyTorch's names: weight_ih_l0 [G·H, in], weight_hh_l0 [G·H,
 * out], bias_ih_l0, bias_hh_l0, with the suffix `_reverse` for the second direction. One matrix product projects the
 * input of all time steps.
 */
export abstract class Recurrent extends Module {
  /** Features of the input. */
  readonly inputSize: number;
  /** Features of a hidden state. */
  readonly hiddenSize: number;
  /** Number of layers. */
  readonly numLayers: number;
  /** Whether there are biases. */
  readonly bias: boolean;
  /** Whether the batch is the first dimension. */
  readonly batchFirst: boolean;
  /** Probability of dropping outputs between layers in training. */
  readonly dropout: number;
  /** Whether a second direction runs from the end. */
  readonly bidirectional: boolean;
  /** Weights, by PyTorch's names. */
  [weight: `weight_${string}`]: Tensor;
  /** Biases, by PyTorch's names. */
  [bias: `bias_${string}`]: Tensor;

  /** A weight has `gates` times H rows; `outputSize` is the output size per direction, 0 for H. */
  protected constructor(
    layer: string,
    gates: number,
    inputSize: number,
    hiddenSize: number,
    {
      numLayers = 1,
      bias = true,
      batchFirst = false,
      dropout = 0,
      bidirectional = false,
      device,
    }: RecurrentOptions,
    projected = 0,
  ) {
    super();
    this.inputSize = checkWhole(layer, "inputSize", inputSize, 1);
    this.hiddenSize = checkWhole(layer, "hiddenSize", hiddenSize, 1);
    this.numLayers = checkWhole(layer, "numLayers", numLayers, 1);
    this.bias = checkFlag(layer, "bias", bias);
    this.batchFirst = checkFlag(layer, "batchFirst", batchFirst);
    this.dropout = checkProbability(layer, "dropout", dropout);
    this.bidirectional = checkFlag(layer, "bidirectional", bidirectional);
    const bound = 1 / Math.sqrt(hiddenSize);
    const draw = (...shape: number[]): Tensor => makeParameter(drawUniform(shape, -bound, bound, { device }));
    const [rows, out] = [gates * hiddenSize, projected || hiddenSize];
    for (const [level, suffix] of listSuffixes(this)) {
      const inputs = level === 0 ? inputSize : out * (bidirectional ? 2 : 1);
      this[`weight_ih_${suffix}`] = draw(rows, inputs);
      this[`weight_hh_${suffix}`] = draw(rows, out);
      if (bias) {
        this[`bias_ih_${suffix}`] = draw(rows);
        this[`bias_hh_${suffix}`] = draw(rows);
      }
      if (projected > 0) this[`weight_hr_${suffix}`] = draw(projected, hiddenSize);
    }
  }
}

/** The layer index and the name suffix of every direction, in PyTorch's order. */
function listSuffixes({ numLayers, bidirectional }: Recurrent): [level: number, suffix: string][] {
  const ends = bidirectional ? ["", "_reverse"] : [""];
  return Array.from({ length: numLayers }, (_, level) => level).flatMap((level) =>
    ends.map((end): [number, string] => [level, `l${level}${end}`]),
  );
}

function readWeights(layer: Recurrent, suffix: string): DirectionWeights {
  return {
    weightIh: layer[`weight_ih_${suffix}`] as Tensor,
    weightHh: layer[`weight_hh_${suffix}`] as Tensor,
    biasIh: layer[`bias_ih_${suffix}`],
    biasHh: layer[`bias_hh_${suffix}`],
    weightHr: layer[`weight_hr_${suffix}`],
  };
}

/**
 * Runs `layer` over x, from the `given` states (each with a size of `sizes`, [layers · directions, B, size]) or from
 * zeros. Returns the outputs of the last layer and the final states.
 */
export function runLayers(
  name: string,
  layer: Recurrent,
  cell: Cell,
  x: Tensor,
  given: readonly Tensor[] | undefined,
  sizes: readonly number[],
): { output: Tensor; states: Tensor[] } {
  checkInput(name, x);
  if (x.shape.length === 2) {
    const batch = layer.batchFirst ? 0 : 1;
    const wide = given?.map((state) => checkInput(name, state, "the state").unsqueeze(1));
    const { output, states } = runLayers(name, layer, cell, x.unsqueeze(batch), wide, sizes);
    return { output: output.squeeze(batch), states: states.map((state) => state.squeeze(1)) };
  }
  if (x.shape.length !== 3 || x.shape[2] !== layer.inputSize || x.shape.includes(0)) {
    const order = layer.batchFirst ? "[B, T" : "[T, B";
    refuseMismatch(name, `${order}, ${layer.inputSize}] or [T, ${layer.inputSize}] of at least one time`, x);
  }
  const batch = x.shape[layer.batchFirst ? 0 : 1] as number;
  const all = listSuffixes(layer);
  const starts = sizes.map((size, part) => {
    const shape = [all.length, batch, size];
    if (given === undefined) return zeros(shape, { device: x.device });
    return checkValues(name, "the state", given[part], shape);
  });

  let y = layer.batchFirst ? x.transpose(0, 1) : x;
  const ends: Tensor[][] = sizes.map(() => []);
  for (let level = 0; level < layer.numLayers; level++) {
    if (level > 0 && isTraining(layer) && layer.dropout > 0) y = y.dropout(layer.dropout);
    const outputs: Tensor[] = [];
    for (const [place, [, suffix]] of all.entries()) {
      if (all[place]?.[0] !== level) continue;
      const state = starts.map((start) => start.slice(0, place, place + 1).squeeze(0));
      const run = runDirection(cell, y, state, readWeights(layer, suffix), suffix.endsWith("_reverse"));
      outputs.push(run.output);
      for (const [part, end] of run.state.entries()) ends[part]?.push(end);
    }
    const [first, ...rest] = outputs as [Tensor, ...Tensor[]];
    y = rest.length > 0 ? first.concat(rest, -1) : first;
  }
  const states = ends.map(([first, ...rest]) => (first as Tensor).stack(rest));
  return { output: layer.batchFirst ? y.transpose(0, 1) : y, states };
}

/** Runs one direction of one layer over x [T, B, I]. */
function runDirection(
  cell: Cell,
  x: Tensor,
  start: Tensor[],
  weights: DirectionWeights,
  reverse: boolean,
): { output: Tensor; state: Tensor[] } {
  const [T] = x.shape as [number];
  const projected = cell.project(x, weights);
  let state = start;
  const outputs: Tensor[] = [];
  for (let i = 0; i < T; i++) {
    const t = reverse ? T - 1 - i : i;
    state = cell.step(projected.slice(0, t, t + 1).squeeze(0), state, weights);
    outputs.push((state[0] as Tensor).unsqueeze(0));
  }
  const [first, ...rest] = (reverse ? outputs.reverse() : outputs) as [Tensor, ...Tensor[]];
  return { output: first.concat(rest), state };
}

/** A state of several parts as a list. Throws `ERR_OPTION`. */
export function splitState(
  name: string,
  state: readonly Tensor[] | undefined,
  parts: string,
): readonly Tensor[] | undefined {
  if (state === undefined) return undefined;
  const count = parts.split(",").length;
  if (Array.isArray(state) && state.length === count) return state as readonly Tensor[];
  throw new LowrankError("ERR_OPTION", `${name}: the state is [${parts}], as forward gives it`);
}
