/** Counts a run's memory in advance, by recording the run on a meta device, which allocates and computes nothing. */
import type { Batch } from "../../data/batches.js";
import { memory, resolveDevice, type Device } from "../../device/device.js";
import { throwIfAborted } from "../../errors.js";
import { inject } from "../../lora/index.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { session } from "../../native/binding.js";
import type { Optimizer } from "../../optim/optimizer.js";
import { Replica } from "../../optim/replica.js";
import { zeros } from "../../tensor/create.js";
import { runWithRandom } from "../../tensor/random.js";
import { type MatmulPrecision, noGrad, scope, withMatmulPrecision } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Objective } from "../objective.js";
import { recordPart, recordUpdate } from "../record.js";
import { convertEvaBatch, startsFromRows, type RowsOfEva } from "../inject-with.js";
import { resolveAdapterOptions, createRunOptimizer, groupParameters, trainOwn } from "../run-parts.js";
import type { PartSettings } from "../replicas/shares.js";
import type { Settings } from "../settings.js";
import { MOST_BATCHES } from "../../lora/options/eva.js";
import { yieldToEventLoop } from "../yield-to-event-loop.js";
import type { DryBatches } from "./dry-batches.js";
import type { HeldMemory } from "../held-memory.js";
import { countOffloaded } from "./offloaded.js";
import { type BatchCost, findLargestProduct } from "../rate.js";

/** The peak memory of a run on its device, and its largest batch. */
export interface PeakMemory extends HeldMemory {
  /** Rows and tokens of the largest batch. */
  batch: [rows: number, length: number];
}

/** The memory of a run, and the cost of one of its largest batches. */
export interface DryRun {
  held: PeakMemory;
  cost: BatchCost;
}

/** The run to count, on one device. */
export interface DrySubject {
  settings: PartSettings;
  precision: MatmulPrecision;
  /** Loads the model on a meta device. */
  load(device: Exclude<Device, "auto">): Promise<PretrainedModel>;
  /** Returns the batches to record, at most `batches` of them. */
  batches(model: PretrainedModel, batches: number): Promise<DryBatches>;
}

/** The maximum number of recorded passes through a block, forward and backward; about 100 ms. */
const PASSES = 128;
/** The idle memory that the pool keeps above the peak of live memory when lengths vary (pool.rs). */
const ROOM = { share: 1 / 8, bytes: 16 << 20 };

/** The last dry run. Dry runs are sequential, because they share a pool. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Counts the memory of a run.
 *
 * Errors: errors of loading, of the data and of `inject`; `ERR_OUT_OF_MEMORY` for a tensor that exceeds the largest buffer;
 * the signal's reason.
 */
export function runDry(subject: DrySubject): Promise<DryRun> {
  return takeTurn(() =>
    runWithRandom(subject.settings.seed, () =>
      withMatmulPrecision(subject.precision, () => countMemory(subject)),
    ),
  );
}

/** Runs `counting` after all earlier dry runs. */
export function takeTurn<T>(counting: () => Promise<T>): Promise<T> {
  const turn = last.then(counting);
  last = turn.catch(() => {});
  return turn;
}

/** Returns the number of passes to record for a model. */
export function countPasses(model: PretrainedModel): number {
  const layers = (model.config as { numHiddenLayers?: number }).numHiddenLayers ?? 12;
  return Math.min(40, Math.max(3, Math.floor(PASSES / layers)));
}

async function countMemory({ settings, load, batches }: DrySubject): Promise<DryRun> {
  const { signal } = settings;
  const on =
    typeof settings.model === "string" ? resolveDevice(settings.device as Device) : settings.model.device;
  const device = `meta:${on}` as Exclude<Device, "auto">;
  throwIfAborted(signal);
  session().restartPeak(device);
  const before = memory(device);
  const model = await load(device);
  let trainer: StepRecorder | undefined;
  try {
    const loaded = memory(device);
    const work = await batches(model, countPasses(model));
    const inputs = startsFromRows(model, settings.lora) ? recordEvaBatches(model, work, settings) : [];
    let { live: plain } = memory(device);
    await inject(model, resolveAdapterOptions(model, settings, work.objective));
    const { live } = memory(device);
    for (const tensor of inputs) tensor.dispose();
    plain -= live - memory(device).live;
    trainOwn(model, settings);
    // Each of these takes some milliseconds.
    await yieldToEventLoop();
    model.train();
    model.gradientCheckpointing = settings.gradientCheckpointing;
    const further = settings.part > 0;
    trainer = further ? new FurtherDevice(model, settings) : new FirstDevice(model, settings);
    const trained = memory(device).live - plain;
    if (!further) evaluate(model, work);
    const { moments, cost } = await train(device, trainer, work, settings);
    const { peak } = memory(device);
    const peakBytes = (work.others ? addIdleBuffers(device, peak) : peak) - before.reserved;
    const { resident, held: extra } = countOffloaded(model);
    const inPool = loaded.live - before.live + resident;
    const mapped = loaded.mapped - before.mapped;
    const batch = findLargest(work);
    const heldOut = {
      peakBytes,
      mapped,
      weights: inPool + mapped,
      adapters: trained,
      optimizer: moments,
      activations: peakBytes - inPool - trained - moments,
      ...extra,
      batch,
    };
    return { held: heldOut, cost: { ...cost, product: findLargestProduct(model, batch[0] * batch[1]) } };
  } finally {
    trainer?.dispose();
    model.dispose();
  }
}

/**
 * Records the passes of EVA before injection: the base model runs over batches, which are kept until their components have
 * converged. The worst case is assumed, in which all batches are needed.
 */
function recordEvaBatches(
  model: PretrainedModel,
  { steps }: DryBatches,
  { steps: requestedSteps, gradientAccumulation, packing }: Settings,
): Tensor[] {
  const all = packing || requestedSteps === undefined ? MOST_BATCHES : requestedSteps * gradientAccumulation;
  const batches = steps.flat();
  const created: Tensor[] = [];
  model.eval();
  for (let i = 0; i < Math.max(Math.min(all, MOST_BATCHES), batches.length); i++) {
    const batch = batches[i] ?? findLargestBatch(batches);
    const { ids, attentionMask } = convertEvaBatch(batch, model.device, created);
    if (i < batches.length)
      noGrad(() => scope(() => void (model.forward as Forward).call(model, ids, { attentionMask })));
  }
  return created;
}

type Forward = (ids: Tensor, options: Pick<RowsOfEva, "attentionMask">) => unknown;

/** Adds the buffers that stay idle while other shapes are in use, up to the pool's limit. */
export function addIdleBuffers(device: Device, peak: number): number {
  const live = session().highestLive(device);
  return Math.max(peak, Math.min(live + Math.max(live * ROOM.share, ROOM.bytes), peak + ROOM.bytes));
}

function evaluate(model: PretrainedModel, { objective, held }: DryBatches): void {
  model.eval();
  for (const batch of held) {
    const { loss, scores } = noGrad(() => scope(() => objective.measure(replaceBySilence(batch))));
    loss.dispose();
    scores?.dispose();
  }
  model.train();
}

/** Records the steps. Returns the bytes that the first update allocated, and the cost of the largest batch. */
async function train(
  device: Exclude<Device, "auto">,
  trainer: StepRecorder,
  { objective, steps }: DryBatches,
  { signal }: Settings,
): Promise<{ moments: number; cost: Omit<BatchCost, "product"> }> {
  let moments: number | undefined;
  let [most, cost] = [0, { work: 0, hostSeconds: 0 }];
  for (const batches of steps) {
    let sum: Tensor | undefined;
    for (const batch of batches) {
      const [began, before] = [performance.now(), session().work(device)];
      sum = recordPart(
        () => objective.computeLossSum(replaceBySilence(batch), 1 / Math.max(batch.trained, 1)),
        sum,
      );
      const hostSeconds = (performance.now() - began) / 1000;
      const size = batch.shape[0] * batch.shape[1];
      // Among batches of the same size the last counts, because earlier ones include JIT compilation.
      if (size >= most) [most, cost] = [size, { work: session().work(device) - before, hostSeconds }];
      await yieldToEventLoop();
      throwIfAborted(signal);
    }
    const { live } = memory(device);
    trainer.recordUpdate();
    moments ??= memory(device).live - live;
    sum?.dispose();
  }
  return { moments: moments ?? 0, cost };
}

/** The part of a device that updates the adapter. */
interface StepRecorder {
  recordUpdate(): void;
  dispose(): void;
}

/** The only device, or the first of several, which also receives the gradients of each other device. */
class FirstDevice implements StepRecorder {
  readonly #optimizer: Optimizer;
  readonly #settings: Settings;
  readonly #received: number;

  constructor(model: PretrainedModel, settings: Settings) {
    this.#optimizer = createRunOptimizer(model, settings);
    this.#settings = settings;
    const trained = this.#optimizer.groups.flatMap(({ params }) => params);
    this.#received =
      settings.devices.length === 1 ? 0 : trained.reduce((sum, { size }) => sum + padToArena(size), 0);
  }

  recordUpdate(): void {
    const { device = "meta:cpu" } = this.#optimizer.groups[0]?.params[0] ?? {};
    if (this.#received > 0) zeros([this.#received], { device }).dispose();
    recordUpdate(this.#optimizer, this.#settings.clipNorm).dispose();
  }

  dispose(): void {
    this.#optimizer.dispose();
  }
}

/** A further device, which sends its gradients and receives the values. */
class FurtherDevice implements StepRecorder {
  readonly #parameters: Tensor[];
  readonly #replica: Replica;

  constructor(model: PretrainedModel, settings: Settings) {
    const groups = groupParameters(model, settings).map(({ params }) => [...params]);
    this.#parameters = groups.flat();
    this.#replica = new Replica(groups);
  }

  recordUpdate(): void {
    for (const parameter of this.#parameters) parameter.grad = null;
  }

  dispose(): void {
    this.#replica.dispose();
  }
}

/** The elements that a parameter takes in the engine's arena. */
function padToArena(size: number): number {
  return Math.ceil(size / 64) * 64;
}

/** Replaces speech by silence: its features have the same size, and computing them costs little. */
export function replaceBySilence(batch: Batch): Batch {
  if (batch.audio === undefined) return batch;
  return { ...batch, audio: batch.audio.map(() => () => new Float32Array(1)) };
}

function findLargest({ steps }: Pick<DryBatches, "steps"> & { objective: Objective }): PeakMemory["batch"] {
  const { shape } = findLargestBatch(steps.flat());
  return shape;
}

function findLargestBatch(batches: readonly Batch[]): Batch {
  const size = ({ shape: [rows, length] }: Batch): number => rows * length;
  return batches.reduce((most, batch) => (size(batch) > size(most) ? batch : most));
}
