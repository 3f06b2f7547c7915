/** Counts the memory of trials side by side, by recording their first steps on a meta device. */
import { type Batch, type BatchPlan, listBatchesInOrder } from "../../data/batches.js";
import { type Device, memory } from "../../device/device.js";
import { throwIfAborted } from "../../errors.js";
import { inject, setAdapter } from "../../lora/index.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { session } from "../../native/binding.js";
import type { Optimizer } from "../../optim/optimizer.js";
import { runWithRandom } from "../../tensor/random.js";
import { noGrad, scope, withMatmulPrecision } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { HeldMemory } from "../held-memory.js";
import { countOffloaded } from "../memory/offloaded.js";
import { SCANNED } from "../memory/dry-batches.js";
import { addIdleBuffers, countPasses, replaceBySilence, takeTurn } from "../memory/dry-run.js";
import type { Objective } from "../objective.js";
import type { Prepared } from "../prepare.js";
import { addPart, recordPart, recordUpdate } from "../record.js";
import { planBatches, resolveAdapterOptions } from "../run-parts.js";
import { yieldToEventLoop } from "../yield-to-event-loop.js";
import type { SweepBase } from "./base.js";
import { AdapterObjective } from "./adapter-objective.js";
import { type AdapterRows, measureJointly, recordJointly } from "./joint.js";
import type { Trial } from "./options.js";
import { createAdapterOptimizer } from "./shared-model.js";

/** The most shapes of held-out batches that are recorded. */
const MOST_SHAPES = 8;

/** A trial whose memory is counted. */
interface Counted {
  trial: Trial;
  prepared: Prepared;
  plan: BatchPlan;
  optimizer: Optimizer;
}

/** The batches that trials record at the same time, and the trials whose step ends with them. */
interface Round {
  parts: { name: string; batch: Batch; scale: number }[];
  ends: string[];
}

/**
 * Counts the memory of `trials` side by side on `device`. A single trial has the model for itself. `halves` says whether
 * trials may end early.
 *
 * Errors: errors of loading and of `inject`; `ERR_OUT_OF_MEMORY` for a tensor that exceeds the largest buffer; the signal's
 * reason.
 */
export function countGroup(
  base: SweepBase,
  trials: readonly Trial[],
  device: Exclude<Device, "auto">,
  { halves }: { halves: boolean },
): Promise<HeldMemory> {
  const meta = `meta:${device}` as Exclude<Device, "auto">;
  return takeTurn(() =>
    runWithRandom(base.settings.seed, () =>
      withMatmulPrecision(base.precision, () => countMemory(base, trials, meta, halves)),
    ),
  );
}

async function countMemory(
  base: SweepBase,
  trials: readonly Trial[],
  device: Exclude<Device, "auto">,
  halves: boolean,
): Promise<HeldMemory> {
  const { signal } = base.settings;
  throwIfAborted(signal);
  session().restartPeak(device);
  const before = memory(device);
  const model = await base.loadMeta(device);
  const counted: Counted[] = [];
  try {
    const loaded = memory(device);
    const objective = base.createObjective(model);
    model.train();
    model.gradientCheckpointing = base.settings.gradientCheckpointing;
    for (const trial of trials) counted.push(await addTrial(base, model, objective, trial));
    const [only, ...rest] = counted;
    if (only !== undefined && rest.length === 0) setAdapter(model, only.trial.name);
    const trained = memory(device).live - loaded.live;
    evaluate(objective, counted);
    const { moments, others } = await train(device, objective, counted, model);
    check(objective, counted);
    throwIfAborted(signal);
    const { peak } = memory(device);
    const peakBytes = (others || halves ? addIdleBuffers(device, peak) : peak) - before.reserved;
    const { resident, held: extra } = countOffloaded(model);
    const inPool = loaded.live - before.live + resident;
    const mapped = loaded.mapped - before.mapped;
    return {
      peakBytes,
      mapped,
      weights: inPool + mapped,
      adapters: trained,
      optimizer: moments,
      activations: peakBytes - inPool - trained - moments,
      ...extra,
    };
  } finally {
    for (const { optimizer } of counted) optimizer.dispose();
    model.dispose();
  }
}

async function addTrial(
  base: SweepBase,
  model: PretrainedModel,
  objective: Objective,
  trial: Trial,
): Promise<Counted> {
  const { settings, name } = trial;
  const options = resolveAdapterOptions(model, settings, objective);
  await inject(model, { ...options, initLoraWeights: true, name });
  const prepared = base.prepare(objective, settings);
  const plan = planBatches(settings, objective, prepared.train);
  const optimizer = createAdapterOptimizer(model, name, settings);
  await yieldToEventLoop();
  return { trial, prepared, plan, optimizer };
}

/** Records an evaluation, with one of its batches for each shape. */
function evaluate(objective: Objective, counted: readonly Counted[]): void {
  const { padTokenId } = objective.tokenisation;
  const batches = counted.map(({ trial, prepared }) =>
    listBatchesInOrder(prepared.held, trial.settings.batchSize, padTokenId),
  );
  const seen = new Set<string>();
  for (let scanned = 0; scanned < SCANNED; scanned++) {
    const parts = counted.flatMap(({ trial }, i) => {
      const next = batches[i]?.next();
      return next === undefined || next.done === true
        ? []
        : [{ name: trial.name, batch: replaceBySilence(next.value) }];
    });
    if (parts.length === 0) return;
    const shape = describeShape(parts);
    if (seen.has(shape) || seen.size >= MOST_SHAPES) continue;
    seen.add(shape);
    for (const { loss, scores } of measureJointly(objective, parts)) {
      loss.dispose();
      scores?.dispose();
    }
  }
}

/** Records the loss that checks the last weights of each trial, as a run without an evaluation does. */
function check(objective: Objective, counted: readonly Counted[]): void {
  for (const { trial, plan, prepared } of counted) {
    if (prepared.held.length > 0) continue;
    const trialObjective = counted.length === 1 ? objective : new AdapterObjective(objective, trial.name);
    const [batch] = plan.listBatchesAt(0).batches;
    if (batch !== undefined)
      noGrad(() => scope(() => trialObjective.computeLossSum(replaceBySilence(batch), 1))).dispose();
  }
}

/** Records rounds and updates. Returns the bytes that the first updates allocated, and whether other shapes follow. */
async function train(
  device: Exclude<Device, "auto">,
  objective: Objective,
  counted: readonly Counted[],
  model: PretrainedModel,
): Promise<{ moments: number; others: boolean }> {
  const most = countPasses(model);
  const { rounds, others } = chooseRounds(counted, most);
  const sums = new Map<string, Tensor>();
  const updated = new Set<string>();
  let moments = 0;
  for (const { parts, ends } of rounds) {
    for (const [name, loss] of recordRound(objective, parts)) sums.set(name, addPart(loss, sums.get(name)));
    for (const { trial, optimizer } of counted) {
      if (!ends.includes(trial.name)) continue;
      const { live } = memory(device);
      recordUpdate(optimizer, trial.settings.clipNorm).dispose();
      if (!updated.has(trial.name)) moments += memory(device).live - live;
      updated.add(trial.name);
      sums.get(trial.name)?.dispose();
      sums.delete(trial.name);
    }
    await yieldToEventLoop();
  }
  for (const sum of sums.values()) sum.dispose();
  return { moments, others };
}

function recordRound(objective: Objective, parts: Round["parts"]): [name: string, loss: Tensor][] {
  const silent = parts.map((part) => ({ ...part, batch: replaceBySilence(part.batch) }));
  const [only, ...rest] = silent;
  if (only === undefined) return [];
  // A single trial is recorded as a run alone, which packing needs.
  if (rest.length === 0) {
    const loss = recordPart(() => objective.computeLossSum(only.batch, only.scale), undefined);
    return [[only.name, loss]];
  }
  const generator = { seed: 0, draws: 0 };
  const losses = recordJointly(
    objective,
    silent.map((part) => ({ ...part, generator })),
  );
  return losses.map((loss, i) => [(parts[i] as Round["parts"][number]).name, loss]);
}

/**
 * Returns the rounds of the first two steps, each cut to a part of `most` rounds, and the largest round twice. `others`
 * says whether the run also has rounds of other shapes.
 */
function chooseRounds(counted: readonly Counted[], most: number): { rounds: Round[]; others: boolean } {
  // Trials that end earlier leave smaller rounds to the others.
  const lengths = counted.map(({ plan, trial: { settings } }) => plan.steps * settings.gradientAccumulation);
  let others = new Set(lengths).size > 1;
  const first = Math.max(1, Math.floor(most / 2));
  const rounds = [
    ...listRounds(counted, 1, (step) => (step === 0 ? first : 0)),
    ...listRounds(counted, 2, (step) => (step === 1 ? Math.max(1, most - first) : 0)),
  ];
  const shapes = new Set(rounds.map((round) => describeShape(round.parts)));
  let large: Round | undefined;
  for (const round of listRounds(counted, SCANNED, () => Infinity)) {
    if (countTokens(round) > countTokens(large)) large = round;
    others ||= !shapes.has(describeShape(round.parts));
  }
  const highest = Math.max(...rounds.map(countTokens));
  if (large !== undefined && countTokens(large) > highest) {
    const ends = counted.map(({ trial }) => trial.name);
    rounds.push({ ...large, ends: [] }, { ...large, ends });
  }
  return { rounds, others };
}

/** Yields the rounds of the first `steps` steps of all trials; `limit` cuts the rounds of a step. */
function* listRounds(
  counted: readonly Counted[],
  steps: number,
  limit: (step: number) => number,
): Generator<Round> {
  const trialParts = counted.map((trial) => listParts(trial, steps, limit));
  for (let scanned = 0; scanned < SCANNED; scanned++) {
    const parts = trialParts.flatMap((rounds) => {
      const next = rounds.next();
      return next.done === true ? [] : [next.value];
    });
    if (parts.length === 0) return;
    yield { parts, ends: parts.filter(({ last }) => last).map(({ name }) => name) };
  }
}

/** Yields the batches of one trial; `last` marks the end of a step. */
function* listParts(
  { trial: { name }, plan }: Counted,
  steps: number,
  limit: (step: number) => number,
): Generator<Round["parts"][number] & { last: boolean }, void> {
  for (let step = 0; step < Math.min(steps, plan.steps); step++) {
    if (limit(step) === 0) continue;
    const { batches, trained } = plan.listBatchesAt(step);
    const counted = batches.slice(0, limit(step));
    for (const [i, batch] of counted.entries())
      yield { name, batch, scale: 1 / Math.max(trained, 1), last: i === counted.length - 1 };
  }
}

function countTokens(round: Round | undefined): number {
  if (round === undefined) return 0;
  const rows = round.parts.reduce((sum, { batch }) => sum + batch.shape[0], 0);
  return rows * Math.max(...round.parts.map(({ batch }) => batch.shape[1]));
}

/** Returns a key of the properties that determine a round's memory. */
function describeShape(parts: readonly AdapterRows[]): string {
  const batches = parts.map(({ batch }) => batch);
  const length = Math.max(...batches.map(({ shape }) => shape[1]));
  const rows = batches.map(({ shape, trained, positions }) => [shape[0], trained, positions !== undefined]);
  return `${length} ${rows.join()}`;
}
