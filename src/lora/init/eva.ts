/** EVA: A starts as the principal components of a layer's inputs (Paischer et al. 2024; PEFT's eva.py). */
import { LowrankError } from "../../errors.js";
import { mapOverCores, PrincipalComponents, type Components } from "../../tensor/linalg.js";
import type { Linear } from "../../nn/linear.js";
import type { Module } from "../../nn/module.js";
import { noGrad, scope } from "../../tensor/scope.js";
import { isTensor, type Tensor } from "../../tensor/tensor.js";
import { withoutAdapters } from "../adapter/active.js";
import { EVA_DEFAULTS, MOST_BATCHES, type EvaBatch, type EvaConfig, type EvaData } from "../options/eva.js";
import { roundHalfToEven, distributeRanks, type EvaLayer } from "./eva-ranks.js";

const IGNORED = -100;

/** The state of the components of one layer's inputs. */
interface Stream {
  pca: PrincipalComponents;
  components: number;
  found: Components | undefined;
  settled: boolean;
}

/**
 * Returns A [rank, in] of each layer, by path; the rank may be 0. Runs the model in evaluation mode without adapters and
 * restores its state. Throws `ERR_OPTION` for empty or insufficient data, and the errors of the model's forward.
 */
export async function computeEva(
  model: Module,
  layers: ReadonlyMap<string, { layer: Linear; r: number }>,
  data: EvaData,
  config: EvaConfig = {},
): Promise<Map<string, { rank: number; loraA: Float32Array }>> {
  const { rho, tau, whiten, useLabelMask } = { ...EVA_DEFAULTS, ...config };
  // Not with eval(), which would merge directly constructed layers.
  const modes = [...model.namedModules()].map(([, module]) => [module, module.training] as const);
  const inputs = new Inputs(layers, useLabelMask);
  try {
    for (const [module] of modes) module.training = false;
    const batches = repeatData(data);
    const first = await readNext(batches);
    const requested = await inputs.findSharedInputs(model, first);
    const streams = createStreams(layers, requested, rho);
    let ranks = new Map([...streams].map(([path, { components }]) => [path, components]));
    for (let seen = 0; ; seen++) {
      for (const [path, stream] of streams)
        stream.settled = isSettled(stream, ranks.get(path) as number, tau);
      const open = [...streams].filter(([, stream]) => !stream.settled);
      if (open.length === 0) break;
      if (seen >= MOST_BATCHES)
        refuse(`the components of ${open[0]?.[0]} have not converged in ${seen} batches`);
      const rows = await inputs.readInputs(
        model,
        seen === 0 ? first : await readNext(batches),
        open.map(([path]) => path),
      );
      await mapOverCores(open, async ([path, stream]) => {
        const found = await stream.pca.fit(rows.get(path) as Float32Array);
        if (found.components.length > 0) stream.found = found;
      });
      if (batches.rounds > 0 && [...streams.values()].some(({ found }) => found === undefined)) {
        const [path, { components }] = [...streams].find(([, stream]) => stream.found === undefined) as [
          string,
          Stream,
        ];
        refuse(`${path} takes ${components} components, and no batch has as many positions that count`);
      }
      if ([...streams.values()].every(({ found }) => found !== undefined))
        ranks = distributeRanks(
          requested,
          new Map([...streams].map(([path, { found }]) => [path, (found as Components).ratios])),
        );
    }
    return new Map(
      requested.map(({ path, inputsOf }) => {
        const rank = ranks.get(path) as number;
        const { components, singularValues } = (streams.get(inputsOf) as Stream).found as Components;
        const features = (layers.get(path) as { layer: Linear }).layer.inFeatures;
        const loraA = Float32Array.from(components.subarray(0, rank * features), (value, i) =>
          whiten ? value / Math.sqrt(singularValues[Math.floor(i / features)] as number) : value,
        );
        return [path, { rank, loraA }];
      }),
    );
  } finally {
    for (const [module, training] of modes) module.training = training;
  }
}

function refuse(message: string): never {
  throw new LowrankError("ERR_OPTION", `evaData: ${message}`);
}

/** Repeats data endlessly and counts complete rounds. */
interface Again extends AsyncGenerator<EvaBatch, never, void> {
  rounds: number;
}

function repeatData(data: EvaData): Again {
  const batches: EvaBatch[] = [];
  async function* run(): AsyncGenerator<EvaBatch, never, void> {
    for await (const batch of data as AsyncIterable<EvaBatch>) {
      batches.push(batch);
      yield batch;
    }
    if (batches.length === 0) refuse("there is no batch");
    for (;;) {
      generator.rounds++;
      yield* batches;
    }
  }
  const generator = Object.assign(run(), { rounds: 0 });
  return generator;
}

async function readNext(batches: Again): Promise<EvaBatch> {
  return (await batches.next()).value as EvaBatch;
}

function isSettled({ found }: Stream, rank: number, tau: number): boolean {
  if (rank === 0) return true;
  if (found === undefined || found.similarity.length < rank) return false;
  return found.similarity.subarray(0, rank).every((cosine) => cosine >= tau);
}

function createStreams(
  layers: ReadonlyMap<string, { layer: Linear; r: number }>,
  requested: readonly EvaLayer[],
  rho: number,
): Map<string, Stream> {
  const streams = new Map<string, Stream>();
  for (const { path, inputsOf, r } of requested) {
    const { inFeatures } = (layers.get(path) as { layer: Linear }).layer;
    const most = roundHalfToEven(r * rho);
    if (most > inFeatures)
      throw new LowrankError(
        "ERR_OPTION",
        `eva: ${path} has ${inFeatures} inputs, which do not have ${most} components (rank ${r} times rho ${rho})`,
      );
    const components = Math.max(most, streams.get(inputsOf)?.components ?? 0);
    const pca = new PrincipalComponents(components, inFeatures);
    streams.set(inputsOf, { pca, components, found: undefined, settled: false });
  }
  return streams;
}

/** Captures the inputs of layers in a forward of the base. */
class Inputs {
  constructor(
    private readonly layers: ReadonlyMap<string, { layer: Linear; r: number }>,
    private readonly useLabelMask: boolean,
  ) {}

  /** Finds layers whose input is the same tensor. */
  async findSharedInputs(model: Module, batch: EvaBatch): Promise<EvaLayer[]> {
    // Keyed by the tensor object, since the id of a freed tensor is reused.
    const firstOf = new Map<Tensor, string>();
    const requested = new Map<string, EvaLayer>();
    await this.run(model, batch, (path, x) => {
      const { r } = this.layers.get(path) as { r: number };
      if (!firstOf.has(x)) firstOf.set(x, path);
      requested.set(path, { path, inputsOf: firstOf.get(x) as string, r });
    });
    const never = [...this.layers.keys()].find((path) => !requested.has(path));
    if (never !== undefined) refuse(`the model's forward does not call ${never}`);
    return [...this.layers.keys()].map((path) => requested.get(path) as EvaLayer);
  }

  /** Returns the counted rows [n, in] of the inputs of some layers. */
  async readInputs(
    model: Module,
    batch: EvaBatch,
    paths: readonly string[],
  ): Promise<Map<string, Float32Array>> {
    const wanted = new Set(paths);
    const reads = new Map<string, Promise<Float32Array>>();
    await this.run(model, batch, (path, x) => {
      if (wanted.has(path)) reads.set(path, x.to("f32").data() as Promise<Float32Array>);
    });
    const keep = await this.readCountedPositions(batch);
    const rows = new Map<string, Float32Array>();
    for (const [path, read] of reads) {
      const { inFeatures } = (this.layers.get(path) as { layer: Linear }).layer;
      rows.set(path, pickRows(await read, inFeatures, keep));
    }
    return rows;
  }

  private async run(model: Module, batch: EvaBatch, see: (path: string, x: Tensor) => void): Promise<void> {
    const ids = isTensor(batch) ? batch : batch.ids;
    const options = isTensor(batch) || !batch.attentionMask ? {} : { attentionMask: batch.attentionMask };
    const forward = (model as unknown as { forward(ids: Tensor, options: object): unknown }).forward;
    const restoring = [...this.layers].map(([path, { layer }]) => observeInputs(layer, (x) => see(path, x)));
    try {
      await withoutAdapters(model, () => noGrad(() => scope(() => void forward.call(model, ids, options))));
    } finally {
      for (const restore of restoring) restore();
    }
  }

  /** Returns which positions count; undefined for all. */
  private async readCountedPositions(batch: EvaBatch): Promise<boolean[] | undefined> {
    if (isTensor(batch)) return undefined;
    const mask = (await batch.attentionMask?.data()) as Int32Array | undefined;
    const labels = this.useLabelMask ? ((await batch.labels?.data()) as Int32Array | undefined) : undefined;
    if (mask === undefined && labels === undefined) return undefined;
    return Array.from(
      { length: batch.ids.size },
      (_, i) => (mask === undefined || mask[i] !== 0) && (labels === undefined || labels[i] !== IGNORED),
    );
  }
}

/** Calls `see` with each input of `layer`; returns a function that stops this. */
function observeInputs(layer: Linear, see: (x: Tensor) => void): () => void {
  const original = Object.getOwnPropertyDescriptor(layer, "forward");
  const forward = layer.forward as (...inputs: Tensor[]) => Tensor;
  const observe = (...inputs: Tensor[]): Tensor => {
    see(inputs[0] as Tensor);
    return forward.apply(layer, inputs);
  };
  Object.defineProperty(layer, "forward", { value: observe, writable: true, configurable: true });
  return () => {
    if (original === undefined) delete (layer as { forward?: unknown }).forward;
    else Object.defineProperty(layer, "forward", original);
  };
}

function pickRows(
  values: Float32Array,
  features: number,
  keep: readonly boolean[] | undefined,
): Float32Array {
  // Inputs that are not per position (such as a pooled state) all count.
  if (keep === undefined || keep.length * features !== values.length) return values;
  const out = new Float32Array(keep.filter(Boolean).length * features);
  let offset = 0;
  for (const [i, counts] of keep.entries()) {
    if (!counts) continue;
    out.set(values.subarray(i * features, (i + 1) * features), offset);
    offset += features;
  }
  return out;
}
