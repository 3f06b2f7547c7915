/** Trains an adapter for a loaded model on prepared data: injection, checkpoints, evaluation and the final save. */
import { createHash } from "node:crypto";
import { dirname, join, resolve } from "node:path";

import type { BatchPlan } from "../../data/batches.js";
import { type ChatTemplates, setTemplates, findTemplatesInUse } from "../../lora/adapter/chat-templates.js";
import { writeAdapter } from "../../lora/formats/files.js";
import { deleteAdapter, loadAdapter, type InjectReport } from "../../lora/index.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { type Optimizer, schedule as schedules } from "../../optim/index.js";
import type { MatmulPrecision } from "../../tensor/scope.js";
import { yieldToEventLoop } from "../yield-to-event-loop.js";
import { amendProgress, restoreState, writeState, type Provenance } from "../output/checkpoint.js";
import { Divergence, type Reference } from "../divergence.js";
import { EarlyStopping } from "../early-stopping.js";
import { evaluate, computeLoss, type Evaluation } from "../evaluate.js";
import type { FinetuneResult, PlannedMemory } from "../events.js";
import type { Identities } from "../output/run-file.js";
import { injectWith } from "../inject-with.js";
import { nameClasses, saveLabels } from "../label-names.js";
import { runLoop, type LoopResult, type StepWork } from "../loop.js";
import { listCheckpoints } from "../output/checkpoints.js";
import type { RunOutput } from "../output/following.js";
import { nameCheckpoint } from "../output/resumable.js";
import { isWithinLine, type Line } from "../output/lineage.js";
import { findDamage } from "../output/manifest.js";
import { createRecord } from "../output/run-record.js";
import type { Prepared } from "../prepare.js";
import { Replicas } from "../replicas/replicas.js";
import { agree, type RunRanks } from "../ranks/run-ranks.js";
import type { PastRun } from "../recorder.js";
import { createTooFewStepsError, type Resumed } from "../resume.js";
import { parseSaveInterval } from "../options/save-interval.js";
import { resolveAdapterOptions, planBatches, computeSavedBytes } from "../run-parts.js";
import type { ScheduleName } from "../options.js";
import { listOptions, countWarmupSteps, type Settings } from "../settings.js";
import { createRowsEvent, createSampling } from "../samples.js";
import { type AdapterHost, OwnModel } from "./adapter-host.js";
import { createStartEvent } from "./start-event.js";
import type { RecordedContext } from "../watched.js";
import { reportWithoutEffect } from "../without-effect.js";

/** Complete settings, with the precision of products resolved. */
export interface ResolvedSettings extends Settings {
  matmulPrecision: MatmulPrecision;
}

/** The inputs of a run. */
export interface Subject {
  model: PretrainedModel;
  /** The model on each further device. */
  others: readonly PretrainedModel[];
  settings: ResolvedSettings;
  prepared: Prepared;
  output: RunOutput;
  line: Line;
  identities: Identities;
  /** The expected memory use; undefined without a plan. */
  memory: PlannedMemory | undefined;
  /** How the run uses the model; by default it is the only one that trains it. */
  host?: AdapterHost | undefined;
  /** Called before each step; false ends the run there. */
  gate?: ((step: number) => Promise<boolean>) | undefined;
  /** The processes that train the same adapter; undefined for one. */
  ranks?: RunRanks | undefined;
}

/** The folder into which `saveAdapter` writes an adapter of this name. */
function resolveAdapterFolder(folder: string, name: string): string {
  return name === "default" ? folder : join(folder, name);
}

export class AdapterRun {
  readonly #subject: Subject;
  readonly #context: RecordedContext;
  readonly #plan: BatchPlan;
  /** The adapter's name, which decides its folder. */
  readonly #name: string;
  /** With the warm-up resolved to steps. */
  readonly #settings: ResolvedSettings & { warmup: number };
  #stopping: EarlyStopping;
  #divergence: Divergence;
  readonly #host: AdapterHost;
  #evaluated: { step: number; loss: number } | undefined;
  /** The chat templates that rendered the data: the model's, or an adapter's that was active before. */
  readonly #templates: ChatTemplates | undefined;

  constructor(subject: Subject, context: RecordedContext) {
    this.#subject = subject;
    this.#context = context;
    const { settings, prepared } = subject;
    this.#name = settings.lora.name ?? "default";
    this.#host = subject.host ?? new OwnModel(subject.model, settings);
    this.#stopping = new EarlyStopping(settings.patience);
    this.#plan = planBatches(settings, prepared.objective, prepared.train);
    this.#templates = findTemplatesInUse(subject.model);
    // Resolved once, so that a later extension of the run does not change the warm-up.
    this.#settings = { ...settings, warmup: countWarmupSteps(settings.warmup, this.#plan.steps) };
    this.#divergence = this.#watch({});
  }

  #watch(resumed: { first?: number; reference?: Reference | undefined }): Divergence {
    const { labels, tokenisation } = this.#subject.prepared.objective;
    const guessing = Math.log(labels?.length ?? tokenisation.vocabSize);
    const { first = 0, reference } = resumed;
    return new Divergence({ guessing, reference, steps: this.#plan.steps - first });
  }

  async run(resumed: Resumed | undefined): Promise<FinetuneResult> {
    const { model, settings, prepared } = this.#subject;
    const { ranks } = this.#subject;
    const first = await agree(ranks, () => (resumed === undefined ? 0 : this.#resume(resumed)));
    const resources: { dispose(): void }[] = [];
    try {
      const { report, optimizer, replicas } = await agree(ranks, async () => {
        const report = await this.#host.adapt(() => this.#adapt(model, resumed));
        setTemplates(model, this.#host.name, this.#templates);
        const optimizer = await this.#host.createOptimizer();
        resources.push(optimizer);
        if (resumed !== undefined)
          await restoreState(resumed.checkpoint.folder, resumed.checkpoint.progress, optimizer);
        const replicas = await this.#replicate(optimizer, resumed);
        resources.unshift(replicas);
        await this.#begin(optimizer, resumed);
        return { report, optimizer, replicas };
      });
      await yieldToEventLoop();
      const { devices } = settings;
      const places = await ranks?.gatherAll({ host: ranks.host, pid: process.pid, devices });
      this.#context.emit(createStartEvent({ ...this.#subject, places }, this.#plan, report, first));
      const named = { ...settings, lora: { ...settings.lora, name: this.#host.name } };
      for (const message of reportWithoutEffect(model, named, this.#plan.steps))
        this.#context.emit({ type: "warning", message });
      this.#context.emit(createRowsEvent(model.tokenizer, prepared.train));
      await yieldToEventLoop();
      const ended = await this.#train(optimizer, replicas, first, resumed);
      if (ranks !== undefined) await this.#compareValues(ranks, optimizer);
      return await agree(ranks, () => this.#finish(ended, optimizer));
    } catch (error) {
      this.#host.abandon();
      throw error;
    } finally {
      for (const resource of resources) resource.dispose();
    }
  }

  #replicate(optimizer: Optimizer, resumed: Resumed | undefined): Promise<Replicas> {
    const { settings, prepared, others: models } = this.#subject;
    const { objective } = prepared;
    return Replicas.create({
      settings,
      objective,
      models,
      optimizer,
      adapt: (model) => this.#adapt(model, resumed),
    });
  }

  /** Warns if the ranks hold different values, such as where their processors round differently. */
  async #compareValues(ranks: RunRanks, { groups }: Optimizer): Promise<void> {
    const hash = createHash("sha256");
    for (const { params } of groups) for (const param of params) hash.update(await param.data());
    const all = await ranks.gatherAll(hash.digest("hex"));
    const other = all.findIndex((digest) => digest !== all[0]);
    if (other < 0) return;
    const what = `rank ${other} ended with other values than rank 0, whose adapter is saved`;
    const message = `${what}: their devices round differently; use the same kind of device on all ranks`;
    this.#context.emit({ type: "warning", message });
  }

  /** Returns the step to continue from. Throws `ERR_OPTION` if the run cannot continue from the checkpoint. */
  #resume({ checkpoint: { progress, folder } }: Resumed): number {
    const first = this.#plan.resume(progress.cursor);
    const { steps } = this.#plan;
    if (first > steps)
      throw createTooFewStepsError(
        folder,
        first,
        steps,
        this.#settings.steps === undefined ? (this.#settings.epochs ?? 1) : undefined,
      );
    const { reference: loss, referenceGradient: gradNorm } = progress;
    this.#divergence = this.#watch({ first, reference: loss === undefined ? undefined : { loss, gradNorm } });
    const change = describeScheduleChange(this.#settings, { first, steps, total: progress.total });
    if (change !== undefined) this.#context.emit({ type: "warning", message: change });
    const { device } = this.#subject.model;
    if (progress.device !== device) {
      const message = `resume: the run was on ${progress.device} and is now on ${device}; the results of two devices differ in the last bits`;
      this.#context.emit({ type: "warning", message });
    }
    const { best } = progress.judged;
    const elsewhere = join(folder, "..");
    const stopping =
      best === null ? progress.judged : { ...progress.judged, best: { folder: elsewhere, ...best } };
    this.#stopping = new EarlyStopping(this.#subject.settings.patience, stopping);
    if (progress.evalLoss !== null) this.#evaluated = { step: first, loss: progress.evalLoss };
    return first;
  }

  /** Starts the run's record and event log. From here on the output folder belongs to this run. */
  async #begin(optimizer: Optimizer, resumed: Resumed | undefined): Promise<void> {
    const { output } = this.#subject;
    if (!output.writes) return;
    const { saveEvery, patience } = this.#settings;
    const checkpoints = parseSaveInterval(saveEvery) !== undefined || patience !== undefined;
    await output.checkRoom(computeSavedBytes(optimizer, checkpoints));
    const parent = resumed === undefined ? null : resumed.checkpoint.folder;
    const { settings } = this.#subject;
    const record = await createRecord(output.path, output.record, {
      ...this.#describeProvenance(),
      parent,
      replaces: resumed?.checkpoint.progress.replaces,
    });
    const replacing = settings.overwrite && record.replacing;
    await output.begin(record, { replacing });
    const before = resumed && locatePast(resumed);
    await this.#context.recorder.begin(output.path, {
      line: record.line,
      before,
      staged: replacing,
      log: settings.log,
    });
  }

  #describeProvenance(): Provenance {
    const { model, line, identities } = this.#subject;
    const settings = this.#settings;
    return { line, options: listOptions(settings), cwd: process.cwd(), identities, device: model.device };
  }

  /** Gives a model the run's adapter: the checkpoint's, the start adapter, or a new one. */
  async #adapt(model: PretrainedModel, resumed: Resumed | undefined): Promise<InjectReport> {
    const { settings, prepared } = this.#subject;
    if (resumed !== undefined) return this.#load(model, resumed.checkpoint.folder);
    const { name } = this.#host;
    if (settings.adapter !== undefined)
      return loadAdapter(model, settings.adapter, { name, trainable: true });
    const options = resolveAdapterOptions(model, settings, prepared.objective);
    return injectWith(model, { ...options, name }, this.#plan);
  }

  #load(model: PretrainedModel, folder: string): Promise<InjectReport> {
    return loadAdapter(model, resolveAdapterFolder(folder, this.#name), {
      name: this.#host.name,
      trainable: true,
    });
  }

  /** Saves the adapter and, for a classifier, the names of its classes. */
  async #saveAdapter(folder: string): Promise<void> {
    const { model, prepared } = this.#subject;
    const path = resolveAdapterFolder(folder, this.#name);
    await writeAdapter(model, path, this.#host.name);
    const { labels } = prepared.objective;
    if (labels !== undefined) await saveLabels(path, labels);
  }

  async #train(
    optimizer: Optimizer,
    replicas: Replicas,
    first: number,
    resumed: Resumed | undefined,
  ): Promise<LoopResult> {
    const { model, settings, prepared } = this.#subject;
    const { schedule, warmup, clipNorm, evalEvery, signal, batchSize } = this.#settings;
    const saveEvery = parseSaveInterval(settings.saveEvery);
    const { held, objective } = prepared;
    const total = this.#plan.steps;
    const unevaluated = resumed?.checkpoint.progress.evalLoss === null;
    const measuring = { batchSize, measure: this.#host.measure, ranks: this.#subject.ranks };
    return runLoop({
      device: model.device,
      optimizer,
      replicas: replicas.copies,
      ranks: this.#subject.ranks,
      schedule: schedules[schedule]({ warmup, total }),
      first,
      steps: this.#stopping.exhausted ? first : total,
      work: (step) => this.#planStep(replicas, step),
      clipNorm,
      evaluate:
        held.length === 0
          ? undefined
          : (signal, between) => evaluate(model, objective, held, { ...measuring, signal, between }),
      evalEvery,
      sample: createSampling(this.#subject, this.#context),
      save: (step) => this.#save(optimizer, step, resumed),
      saveEvery,
      savesEnd: saveEvery !== undefined,
      saved: resumed && { path: resumed.checkpoint.folder, unevaluated, good: resumed.lastGood },
      checked: (path, good) => this.#mark(path, good),
      check: (step) => this.#check(step),
      divergence: this.#divergence,
      now: this.#context.now,
      judge: (step, evaluation) => this.#judge(step, evaluation, step === first),
      signal,
      skips: true,
      context: this.#context,
    });
  }

  /** Returns the work of a step; undefined if the run ends before it. */
  async #planStep(replicas: Replicas, step: number): Promise<StepWork | undefined> {
    if ((await this.#subject.gate?.(step)) === false) return undefined;
    return this.#host.planStep?.(this.#plan, step) ?? replicas.planStep(this.#plan, step);
  }

  #judge(step: number, { loss }: Evaluation, late: boolean): { save: boolean; end: boolean } {
    this.#evaluated = { step, loss };
    const { save, end } = this.#stopping.judge(step, loss);
    // A checkpoint that was saved without this evaluation is amended with it.
    return { save: save || (late && step > 0), end };
  }

  async #save(optimizer: Optimizer, step: number, resumed: Resumed | undefined): Promise<string> {
    const { output, settings } = this.#subject;
    const evalLoss = this.#evaluated?.step === step ? this.#evaluated.loss : null;
    const { judged } = this.#stopping;
    if (!output.writes) return join(output.path, nameCheckpoint(step));
    const start = resumed?.checkpoint;
    if (start?.step === step && join(start.folder, "..") === join(output.path, ".")) {
      await amendProgress(start.folder, { evalLoss, judged });
      return start.folder;
    }
    // The events of its steps reach the disk before the checkpoint.
    await this.#context.recorder.flush();
    const { path, moved } = await output.saveCheckpoint(step, {
      evalLoss,
      keep: settings.keep,
      fill: async (folder) => {
        await this.#saveAdapter(folder);
        const cursor = this.#plan.createCursor(step);
        const { replaces } = output;
        const { loss: reference, gradNorm: referenceGradient } = this.#divergence.reference ?? {};
        const { steps: total } = this.#plan;
        const known = { evalLoss, judged, replaces, total, reference, referenceGradient };
        const state = { ...this.#describeProvenance(), cursor, ...known };
        await writeState(folder, optimizer, state);
      },
    });
    await this.#context.recorder.recordSave();
    if (moved !== undefined) {
      const message = `the existing checkpoint of step ${step}, of another run or branch, was moved to ${moved}`;
      this.#context.emit({ type: "warning", message });
    }
    return path;
  }

  /** Records whether a checkpoint is good, but only in the output folder: other runs may own other folders. */
  async #mark(path: string, good: boolean): Promise<void> {
    const { output, settings } = this.#subject;
    if (dirname(resolve(path)) === resolve(output.path))
      await output.markCheckpoint(path, { good, keep: settings.keep });
  }

  /** Returns the loss of the next batch. */
  async #check(step: number): Promise<number> {
    const { ranks, prepared } = this.#subject;
    const { batches } = this.#plan.divideRows(step, (rows) => Array.from({ length: rows }, () => 0));
    const [rows] = batches[0] as [number[][]];
    const read = await this.#plan.gather(Array.from({ length: ranks?.size ?? 1 }, () => rows.flat()));
    return computeLoss(prepared.objective, this.#plan.build(rows, read));
  }

  /** Saves the adapter and returns the run's result. */
  async #finish({ early: ending, ...ended }: LoopResult, optimizer: Optimizer): Promise<FinetuneResult> {
    const { model, output, prepared, settings } = this.#subject;
    nameClasses(model, prepared.objective.labels);
    const { steps, stopped } = ended;
    const early = ending || (this.#stopping.exhausted && steps < this.#plan.steps);
    if (stopped && steps === 0) {
      this.#host.abandon();
      return { adapter: "", ...ended };
    }
    // A stopped run keeps the final adapter of the run that it would replace.
    if (stopped && output.replacing)
      return { adapter: resolveAdapterFolder(output.newest ?? "", this.#name), ...ended };
    const best =
      stopped || settings.patience === undefined ? undefined : await this.#restoreBest(optimizer, early);
    const why = stopped ? "stopped" : early ? "patience" : "done";
    await output.placeAdapter((folder) => this.#saveAdapter(folder), {
      step: steps,
      why,
      ...(best && { best: best.step }),
    });
    await this.#context.recorder.recordSave();
    const adapter = resolveAdapterFolder(output.path, this.#name);
    return { adapter, ...ended, ...(best && { best }) };
  }

  /** Loads the adapter of the best evaluation instead of the last step's. */
  async #restoreBest(optimizer: Optimizer, early: boolean): Promise<FinetuneResult["best"]> {
    const { model, output, line } = this.#subject;
    const { best } = this.#stopping.judged;
    if (best === null) return undefined;
    const { step, loss } = best;
    const homes = [output.path, ...(best.folder === undefined ? [] : [best.folder])];
    const all = (await Promise.all(homes.map(listCheckpoints))).flat();
    const found = all.find((checkpoint) => checkpoint.step === step && isWithinLine(line, checkpoint));
    const damage =
      found === undefined ? "it is missing" : await findDamage(found.folder, found.progress.files);
    if (found === undefined || damage !== undefined) {
      const message = `the best checkpoint (step ${step}) cannot be restored: ${damage}; the adapter is from the last step`;
      this.#context.emit({ type: "warning", message });
      return undefined;
    }
    optimizer.dispose();
    deleteAdapter(model, this.#host.name);
    await this.#load(model, found.folder);
    this.#host.handleReload();
    return { step, loss, early };
  }
}

/** Describes how a changed run length affects the schedule; undefined where it does not. */
function describeScheduleChange(
  {
    schedule,
    warmup,
    optimizer: { lr },
  }: { schedule: ScheduleName; warmup: number; optimizer: { lr: number } },
  { first, steps, total }: { first: number; steps: number; total: number | undefined },
): string | undefined {
  if (schedule === "constant" || total === undefined || total === steps || first >= steps) return undefined;
  const formatRate = (totalSteps: number): string =>
    (lr * schedules[schedule]({ warmup, total: totalSteps })(first)).toPrecision(3);
  return (
    `resume: the ${schedule} schedule now ends at step ${steps} instead of ${total}: from step ${first + 1} on the ` +
    `learning rate follows the new length (${formatRate(steps)} at that step instead of ${formatRate(total)}); completed steps are not affected`
  );
}

/** Returns the location and lineage of the steps before the resume. */
function locatePast({ checkpoint: { folder, lineage, step } }: Resumed): PastRun {
  return { home: join(folder, ".."), lineage, step };
}
