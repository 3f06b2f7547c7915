/** The work of a fine-tuning run, from options to an adapter on disk. */
import { join } from "node:path";

import { BatchPlan } from "../data/batches.js";
import { chooseDevice, findDevices, resolveDevice, type Device } from "../device.js";
import { LowrankError, throwIfAborted } from "../errors.js";
import {
  deleteAdapter,
  loadAdapter,
  saveAdapter,
  type InjectOptions,
  type InjectReport,
} from "../lora/index.js";
import { loadModel, type LoadOptions } from "../models/load.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { session } from "../native.js";
import { AdamW, loraPlusGroups, schedule as schedules } from "../optim/index.js";
import { withRandom } from "../random.js";
import { matmulPrecision, withMatmulPrecision, type MatmulPrecision } from "../scope.js";
import { breath } from "./breath.js";
import {
  claimOutput,
  clearOutput,
  findCheckpoint,
  readProgress,
  restoreState,
  saveCheckpoint,
  type Progress,
} from "./checkpoint.js";
import { evaluate } from "./evaluate.js";
import type { FinetuneResult, StartEvent } from "./events.js";
import { injectWith } from "./inject-with.js";
import { nameClasses, saveLabels } from "./label-names.js";
import { runLoop, type StepWork } from "./loop.js";
import type { FinetuneOptions } from "./options.js";
import { prepare, readFiles, type Prepared } from "./prepare.js";
import { Profile } from "./profile.js";
import type { RunContext } from "./run.js";
import { settingsOf, warmupOf, type Settings } from "./settings.js";

/** The work of `finetune`, which describes it. */
export function finetuneNow(options: FinetuneOptions, context: RunContext): Promise<FinetuneResult> {
  const settings = settingsOf(options);
  return withRandom(settings.seed, () => finetuneWith(settings, context));
}

async function finetuneWith(settings: Settings, context: RunContext): Promise<FinetuneResult> {
  const began = performance.now();
  const { signal } = settings;
  throwIfAborted(signal);
  const profile = settings.profile === undefined ? undefined : new Profile(settings.profile);
  try {
    const result = await train(settings, context, profile);
    const profiled = await profile?.finish();
    if (profiled !== undefined) context.emit(profiled);
    context.emit({ type: "end", ...result, seconds: (performance.now() - began) / 1000 });
    return result;
  } finally {
    profile?.discard();
  }
}

async function train(
  settings: Settings,
  context: RunContext,
  profile: Profile | undefined,
): Promise<FinetuneResult> {
  const { signal, output } = settings;
  const given = typeof settings.model === "string" ? undefined : settings.model;
  await findDevices(given === undefined ? settings.device : given.device);
  if (given === undefined) resolveDevice(settings.device);
  else checkDevice(given, settings.device);
  const checkpoint = settings.resume === false ? undefined : await findCheckpoint(output, settings.resume);
  const progress = checkpoint === undefined ? undefined : await readProgress(checkpoint);
  const precision = precisionOf(settings, progress);
  const release = await claimOutput(output, settings.resume !== false || settings.overwrite);
  try {
    const data = await readFiles(settings);
    throwIfAborted(signal);
    const model = given ?? (await load(settings, data.labels, context));
    profile?.start(model.device);
    const training = model.training;
    const checkpointing = model.gradientCheckpointing;
    try {
      const prepared = await prepare(model, data, settings);
      // Each of these takes some milliseconds, and together they would hold up the event loop.
      await breath();
      const run = new Finetuning(model, { ...settings, matmulPrecision: precision }, prepared, context);
      await breath();
      const resumed =
        checkpoint === undefined || progress === undefined ? undefined : { checkpoint, progress };
      return await withMatmulPrecision(precision, () => run.run(resumed));
    } finally {
      if (given === undefined) model.dispose();
      else model.train(training).gradientCheckpointing = checkpointing;
    }
  } finally {
    await release();
  }
}

/** The precision of products: a run that goes on keeps what it was started with. Throws `ERR_OPTION`. */
function precisionOf({ matmulPrecision: asked }: Settings, progress: Progress | undefined): MatmulPrecision {
  if (progress === undefined) return asked ?? matmulPrecision();
  const then = (progress.options["matmulPrecision"] ?? "exact") as MatmulPrecision;
  if (asked === undefined || asked === then) return then;
  throw new LowrankError("ERR_OPTION", `resume: matmulPrecision was ${then}, and is ${asked} now`);
}

/** A classifier where the rows have labels, or else what the model's folder says. */
async function load(
  { model, device, dtype, signal }: Settings,
  labels: readonly string[] | undefined,
  context: RunContext,
): Promise<PretrainedModel> {
  const onNotice = (message: string): void => context.emit({ type: "warning", message });
  const options: LoadOptions = {
    device,
    onNotice,
    ...(dtype === undefined ? {} : { dtype }),
    ...(signal === undefined ? {} : { signal }),
    ...(labels === undefined ? {} : { task: "sequence-classification", numLabels: labels.length }),
  };
  return loadModel(model as string, options);
}

/** A loaded model trains where it is. */
function checkDevice(model: PretrainedModel, device: Device): void {
  if (device === "auto" || resolveDevice(device) === model.device) return;
  throw new LowrankError(
    "ERR_DEVICE_MISMATCH",
    `finetune: the model is on ${model.device}, and device is ${device}; move it with to()`,
  );
}

/** A checkpoint to go on from. */
interface Resumed {
  checkpoint: string;
  progress: Progress;
}

/** Where `saveAdapter` puts an adapter of this name. */
function adapterFolder(folder: string, name: string): string {
  return name === "default" ? folder : join(folder, name);
}

/** Settings of which nothing is left open. */
interface Chosen extends Settings {
  matmulPrecision: MatmulPrecision;
}

/** One run over a loaded model and its data. */
class Finetuning {
  readonly #model: PretrainedModel;
  readonly #settings: Chosen;
  readonly #prepared: Prepared;
  readonly #context: RunContext;
  readonly #plan: BatchPlan;
  readonly #name: string;

  constructor(model: PretrainedModel, settings: Chosen, prepared: Prepared, context: RunContext) {
    this.#model = model;
    this.#settings = settings;
    this.#prepared = prepared;
    this.#context = context;
    this.#name = settings.lora.name ?? "default";
    const { batchSize, gradientAccumulation, seed, steps, epochs } = settings;
    const { padTokenId } = prepared.objective.tokenisation;
    this.#plan = new BatchPlan(prepared.train, {
      batchSize,
      gradientAccumulation,
      seed,
      padTokenId,
      steps,
      epochs,
    });
  }

  async run(resumed: Resumed | undefined): Promise<FinetuneResult> {
    const { output, overwrite, lora } = this.#settings;
    const first = resumed === undefined ? 0 : this.#plan.resume(resumed.progress.cursor);
    const model = this.#model;
    const { modulesToSave } = this.#prepared.objective;
    const adapter = {
      ...lora,
      taskType: lora.taskType ?? model.taskType,
      modulesToSave: [...new Set([...(lora.modulesToSave ?? []), ...modulesToSave])],
    };
    const report =
      resumed === undefined ? await injectWith(model, adapter, this.#plan) : await this.#loadAdapter(resumed);
    let optimizer: AdamW | undefined;
    try {
      await breath();
      model.train();
      model.gradientCheckpointing = this.#settings.gradientCheckpointing;
      optimizer = this.#optimizer();
      if (resumed !== undefined) await restoreState(resumed.checkpoint, resumed.progress, optimizer);
      if (overwrite) await clearOutput(output);
      await breath();
      this.#context.emit(this.#startEvent(report, first));
      await breath();
      const rest = await this.#train(optimizer, first);
      await this.#saveAdapter(output);
      nameClasses(model, this.#prepared.objective.labels);
      return { adapter: adapterFolder(output, this.#name), ...rest };
    } catch (error) {
      deleteAdapter(model, this.#name);
      throw error;
    } finally {
      optimizer?.dispose();
    }
  }

  #optimizer(): AdamW {
    const { optimizer, loraPlusRatio: ratio } = this.#settings;
    const model = this.#model;
    if (ratio === undefined) return new AdamW(trainedParameters(model), optimizer);
    return new AdamW(loraPlusGroups(model, { lr: optimizer.lr, ratio }), optimizer);
  }

  /** The adapter, and beside it the names of the classes. */
  async #saveAdapter(folder: string): Promise<void> {
    await saveAdapter(this.#model, folder, { name: this.#name });
    const { labels } = this.#prepared.objective;
    if (labels !== undefined) await saveLabels(adapterFolder(folder, this.#name), labels);
  }

  /** The adapter of a checkpoint. Throws `ERR_OPTION` when it is not the one that the options ask for. */
  async #loadAdapter({ checkpoint, progress }: Resumed): Promise<InjectReport> {
    const [then, now] = [progress.options["lora"], this.#settings.lora].map((lora) =>
      JSON.stringify(recorded(lora as InjectOptions)),
    );
    if (then !== now)
      throw new LowrankError("ERR_OPTION", `resume: the adapter's options were ${then}, and are ${now} now`);
    return loadAdapter(this.#model, adapterFolder(checkpoint, this.#name), {
      name: this.#name,
      trainable: true,
    });
  }

  async #train(optimizer: AdamW, first: number): Promise<Omit<FinetuneResult, "adapter">> {
    const { schedule, warmup, clipNorm, evalEvery, saveEvery, signal, output, batchSize } = this.#settings;
    const { held, objective } = this.#prepared;
    const model = this.#model;
    const total = this.#plan.steps;
    return runLoop({
      device: model.device,
      optimizer,
      schedule: schedules[schedule]({ warmup: warmupOf(warmup, total), total }),
      first,
      steps: total,
      work: (step) => this.#work(step),
      clipNorm,
      evaluate:
        held.length === 0
          ? undefined
          : (ending) => evaluate(model, objective, held, { batchSize, signal: ending }),
      evalEvery,
      save: (step) =>
        saveCheckpoint(output, {
          optimizer,
          adapter: (folder) => this.#saveAdapter(folder),
          cursor: this.#plan.cursor(step),
          options: this.#recorded(),
        }),
      saveEvery,
      signal,
      skips: true,
      context: this.#context,
    });
  }

  /** The losses of a step: each the sum over a micro-batch, divided by what the whole step trains on. */
  #work(step: number): StepWork {
    const { objective } = this.#prepared;
    const { batches, tokens, trained } = this.#plan.at(step);
    const losses = batches.map((batch) => () => objective.lossSum(batch, 1 / trained));
    return { losses, tokens, trained };
  }

  /** The options, for whoever reads a checkpoint. */
  #recorded(): Record<string, unknown> {
    const {
      model,
      signal: _,
      profile: _profile,
      resume: _resume,
      overwrite: _overwrite,
      lora,
      ...rest
    } = this.#settings;
    return { model: typeof model === "string" ? model : model.source, ...rest, lora: recorded(lora) };
  }

  #startEvent({ adapted, trainable, total }: InjectReport, first: number): StartEvent {
    const model = this.#model;
    const settings = this.#settings;
    const { train, held, objective } = this.#prepared;
    const { device } = model;
    const why = typeof settings.model === "string" ? chooseDevice(settings.device).why : "the model is there";
    return {
      type: "start",
      model: model.source ?? "",
      family: (model.config as { modelType?: string }).modelType ?? "",
      parameters: total,
      trainable,
      adapted: adapted.length,
      targets: [...new Set(adapted.map((path) => path.split(".").at(-1) as string))],
      rank: settings.lora.r,
      alpha: settings.lora.loraAlpha,
      device,
      deviceName: session().deviceName(device),
      deviceReason: why,
      dtype: Object.values(model.stateDict())[0]?.dtype ?? "f32",
      matmulPrecision: settings.matmulPrecision,
      examples: train.length,
      evalExamples: held.length,
      tokens: train.reduce((sum, one) => sum + one.trained, 0),
      steps: this.#plan.steps,
      stepsPerEpoch: this.#plan.stepsPerEpoch,
      batchSize: settings.batchSize,
      gradientAccumulation: settings.gradientAccumulation,
      maxLength: objective.tokenisation.maxLength,
      ...(objective.labels === undefined ? {} : { labels: objective.labels }),
      learningRate: settings.optimizer.lr,
      schedule: settings.schedule,
      warmup: warmupOf(settings.warmup, this.#plan.steps),
      seed: settings.seed,
      output: settings.output,
      resumedFrom: first,
    };
  }
}

/** In the model's order, which is that of the optimizer's state in a checkpoint. */
function trainedParameters(model: PretrainedModel) {
  return [...model.parameters()].filter((parameter) => parameter.requiresGrad);
}

/** An adapter's options but for data, which is no option that a file could hold. */
function recorded(lora: InjectOptions): InjectOptions {
  return { ...lora, evaData: undefined };
}
