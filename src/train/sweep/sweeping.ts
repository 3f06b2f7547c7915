/** Runs a sweep: on each device, consecutive groups of trials that train side by side. */
import { existsSync } from "node:fs";
import { join } from "node:path";

import { optionName } from "../../arguments/option-name.js";
import type { Batch } from "../../data/batches.js";
import { type Device, resolveDevice } from "../../device/device.js";
import { LowrankError, throwIfAborted } from "../../errors.js";
import { makeFolder } from "../../files/folders.js";
import { CausalLM } from "../../models/causal-lm.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { readRandomState, runWithRandom } from "../../tensor/random.js";
import { runWithCheckedCpuUse } from "../../tensor/scope.js";
import { checkModelDevice } from "../device-check.js";
import type { ProgressEvent, WarningEvent } from "../events.js";
import { createUnusableError, removeEmpty } from "../output/folder.js";
import { OutputLock } from "../output/lock.js";
import { openDevices } from "../replicas/devices.js";
import type { RunContext } from "../run.js";
import { SweepBase } from "./base.js";
import { rankTrials, type SweepEvent, type SweepResult } from "./events.js";
import { GroupPlanner, checkTrials, type PlannedGroup } from "./group-plan.js";
import { Halving } from "./halving.js";
import { type ParsedSweep, parseSweep, type SweepOptions, type Trial } from "./options.js";
import { SweepRecord } from "./record.js";
import { SideBySide } from "./side-by-side.js";
import { TrialRun, type GroupParts } from "./trial-run.js";

/** Implements `sweep`; see there. */
export async function runSweep(options: SweepOptions, context: RunContext<SweepEvent>): Promise<SweepResult> {
  const began = performance.now();
  const parsed = parseSweep(options);
  const { common, output } = parsed;
  throwIfAborted(common.signal);
  for (const device of common.devices) await checkModelDevice({ ...common, device });
  if (common.devices.length > 1) await openDevices(common.devices);
  const created = await makeOutput(output);
  const lock = await OutputLock.take(output);
  try {
    const known = common.overwrite ? undefined : await SweepRecord.read(output);
    if (known === undefined && !common.overwrite) checkFree(parsed);
    const { threads, priority } = common;
    const result = await runWithCheckedCpuUse({ threads, priority }, async () => {
      const base = await SweepBase.open(common, restrictContext(context));
      try {
        return await new Sweep(parsed, base, known, context).run();
      } finally {
        base.close();
      }
    });
    context.emit({ type: "swept", ...result, seconds: (performance.now() - began) / 1000 });
    return result;
  } finally {
    await lock.release();
    // A sweep that was refused leaves no folder.
    if (created !== undefined) await removeEmpty(output, created);
  }
}

/** Makes the folder of a sweep; returns the topmost folder that was made. Throws `ERR_OUTPUT_EXISTS`, `ERR_WRITE`. */
async function makeOutput(output: string): Promise<string | undefined> {
  try {
    return await makeFolder(output);
  } catch (cause) {
    throw createUnusableError(output, cause);
  }
}

/** Returns the context of work before any trial, which emits progress and warnings only. */
function restrictContext({ emit }: RunContext<SweepEvent>): Pick<RunContext, "emit"> {
  return { emit: (event) => emit(event as ProgressEvent | WarningEvent) };
}

/** Throws `ERR_OUTPUT_EXISTS` if the folder of a trial exists that no sweep has recorded. */
function checkFree({ output, trials }: ParsedSweep): void {
  const existing = trials.map(({ name }) => join(output, name)).find((folder) => existsSync(folder));
  if (existing === undefined) return;
  throw new LowrankError(
    "ERR_OUTPUT_EXISTS",
    `${existing}: already exists, and ${output} has no sweep.json; replace it with ${optionName("overwrite")}, or choose another folder with ${optionName("output")}`,
  );
}

/** A loaded model, with the seed and the number of random draws that loading it took. */
interface LoadedModel {
  model: PretrainedModel;
  seed: number;
  draws: number;
}

class Sweep {
  readonly #parsed: ParsedSweep;
  readonly #base: SweepBase;
  readonly #record: SweepRecord;
  readonly #halving: Halving | undefined;
  readonly #context: RunContext<SweepEvent>;
  /** The trials that no device has taken. */
  readonly #queue: Trial[];
  /** Why trials run separately, by the names of the trials. */
  #reasons = new Map<string, string>();
  /** Aborted when a group fails, so that the other devices save and end. */
  readonly #failing = new AbortController();

  constructor(
    parsed: ParsedSweep,
    base: SweepBase,
    known: SweepRecord | undefined,
    context: RunContext<SweepEvent>,
  ) {
    this.#parsed = parsed;
    this.#base = base;
    known?.continue(parsed, base.identities);
    this.#record = known ?? SweepRecord.create(parsed.output, parsed, base.identities);
    const { halving } = parsed;
    const compared = new Map(this.#record.trials.map(({ name, comparisons }) => [name, comparisons]));
    this.#halving = halving && new Halving(halving, compared);
    this.#context = { ...context, stopping: AbortSignal.any([context.stopping, this.#failing.signal]) };
    this.#queue = parsed.trials.filter(({ name }) => !this.#record.isFinished(name));
  }

  async run(): Promise<SweepResult> {
    const { trials, common, output } = this.#parsed;
    const devices = common.devices.map((device) => resolveDevice(device));
    const [first = "cpu"] = devices;
    this.#reasons = await checkTrials(this.#base, trials, first);
    await this.#record.write();
    this.#context.emit({
      type: "sweep",
      output,
      trials: trials.map(({ name, values }) => ({ name, values })),
      finished: trials.length - this.#queue.length,
      devices,
    });
    for (const message of this.#listWarnings()) this.#context.emit({ type: "warning", message });
    const ended = await Promise.allSettled(devices.map((device) => this.#trainGroups(device)));
    const failed = ended.find((outcome) => outcome.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    throwIfAborted(common.signal);
    const ranked = rankTrials(this.#record.trials);
    return { output, trials: ranked, stopped: ranked.some(({ name }) => !this.#record.isFinished(name)) };
  }

  #listWarnings(): string[] {
    const { common, trials } = this.#parsed;
    const warnings: string[] = [];
    const evaluation = common.evalData ?? common.evalSplit;
    if (evaluation === undefined)
      warnings.push(
        `there are no held-out rows: trials are ranked by the mean loss of their last steps; give ${optionName("evalData")} or ${optionName("evalSplit")} to compare them on rows that they do not train on`,
      );
    if (common.evalSplit !== undefined && new Set(trials.map(({ settings }) => settings.seed)).size > 1)
      warnings.push(
        `trials with different seeds hold out different rows by ${optionName("evalSplit")}, as finetune does; give ${optionName("evalData")} to compare them on the same rows`,
      );
    for (const reason of new Set(this.#reasons.values())) {
      const affected = trials.filter(({ name }) => this.#reasons.get(name) === reason);
      const which =
        affected.length === trials.length ? "the trials" : `${affected.length} of ${trials.length} trials`;
      warnings.push(`${which} run separately: ${reason}`);
    }
    return warnings;
  }

  /** Trains groups on one device until none is left. */
  async #trainGroups(device: Device): Promise<void> {
    const { sideBySide, common } = this.#parsed;
    const planner = new GroupPlanner(this.#base, device, {
      sideBySide,
      devices: common.devices.length,
      halves: this.#halving !== undefined,
    });
    let loaded: LoadedModel | undefined;
    try {
      while (this.#queue.length > 0 && !this.#context.stopping.aborted) {
        const planned = await this.#take(planner);
        throwIfAborted(common.signal);
        const [{ settings }] = planned.trials as [Trial];
        // A new head is drawn with the seed, as in a run alone.
        if (loaded !== undefined && loaded.draws > 0 && loaded.seed !== settings.seed) {
          loaded.model.dispose();
          loaded = undefined;
        }
        loaded ??= await this.#load(device, settings.seed);
        await this.#runGroup(await this.#keepSeed(planned, loaded, planner), loaded);
      }
    } catch (error) {
      this.#failing.abort();
      throw error;
    } finally {
      loaded?.model.dispose();
    }
  }

  async #load(device: Device, seed: number): Promise<LoadedModel> {
    return runWithRandom(seed, async () => {
      const model = await this.#base.load(device, restrictContext(this.#context));
      return { model, seed, draws: readRandomState().draws };
    });
  }

  /** Takes the next trials that fit side by side from the queue. */
  async #take(planner: GroupPlanner): Promise<PlannedGroup> {
    const queue = this.#queue;
    const isApart = ({ name }: Trial): boolean => this.#reasons.has(name);
    const together = queue.filter((trial) => !isApart(trial));
    const alone = isApart(queue[0] as Trial) || together.length === 0;
    // Groups of equal size end at the same time.
    const { length } = together;
    const groups = Math.max(Math.ceil(length / planner.most), this.#parsed.common.devices.length);
    const wanted = alone ? queue.slice(0, 1) : together.slice(0, Math.max(1, Math.ceil(length / groups)));
    this.#queue.splice(0, queue.length, ...queue.filter((trial) => !wanted.includes(trial)));
    const planned = await planner.plan(wanted);
    this.#queue.unshift(...wanted.slice(planned.trials.length));
    return planned;
  }

  /** Returns trials with another seed to the queue if the model's head depends on the seed. */
  async #keepSeed(
    planned: PlannedGroup,
    { draws, seed }: LoadedModel,
    planner: GroupPlanner,
  ): Promise<PlannedGroup> {
    const same = planned.trials.filter(({ settings }) => settings.seed === seed);
    if (draws === 0 || same.length === planned.trials.length) return planned;
    this.#queue.unshift(...planned.trials.filter((trial) => !same.includes(trial)));
    const fitting = await planner.plan(same);
    this.#queue.unshift(...same.slice(fitting.trials.length));
    return fitting;
  }

  async #runGroup({ trials, memory, limit }: PlannedGroup, { model, draws }: LoadedModel): Promise<void> {
    const names = trials.map(({ name }) => name);
    const base = this.#base;
    const objective = base.createObjective(model);
    this.#context.emit({
      type: "group",
      trials: names,
      device: model.device,
      memory,
      ...(limit !== undefined && { limit }),
    });
    model.train();
    model.gradientCheckpointing = base.settings.gradientCheckpointing;
    const failing = new AbortController();
    const context = { ...this.#context, stopping: AbortSignal.any([this.#context.stopping, failing.signal]) };
    const others =
      trials.length === 1 ? undefined : this.#createSideBySide(model, objective, trials, context);
    const halving = this.#halving && { all: this.#halving, group: this.#halving.group(names) };
    const record = this.#record;
    const parts: GroupParts = { base, model, objective, draws, others, halving, context, record };
    for (const name of names) others?.join(name);
    const summaries = new Map(this.#record.trials.map((summary) => [summary.name, summary]));
    const ended = await Promise.allSettled(
      trials.map(async (trial) => {
        const before = summaries.get(trial.name) as SweepResult["trials"][number];
        try {
          const summary = await new TrialRun(trial, before, parts).run();
          await this.#record.update(summary);
          this.#context.emit({ type: "trial", ...summary });
        } catch (error) {
          // The other trials save and end.
          failing.abort();
          throw error;
        }
      }),
    );
    const failed = ended.find((outcome) => outcome.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  #createSideBySide(
    model: PretrainedModel,
    objective: GroupParts["objective"],
    trials: readonly Trial[],
    { stopping, pausing }: RunContext<SweepEvent>,
  ): SideBySide {
    const { signal } = this.#parsed.common;
    const drops = trials.some(({ settings }) => (settings.lora.loraDropout ?? 0) > 0);
    const turn = model instanceof CausalLM ? model.turningPoint : Infinity;
    return new SideBySide({
      objective,
      // Dropout masks depend on the padded length, and so do the frequencies of LongRoPE.
      divide: ({ shape: [, length] }: Batch) => (drops ? String(length) : String(length > turn)),
      between: () => (pausing.requested ? pausing.wait([stopping, signal], () => {}) : Promise.resolve()),
    });
  }
}
