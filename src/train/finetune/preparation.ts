/** Prepares a run: reads its data, plans its memory, loads its model and tokenises. */
import { throwIfAborted } from "../../errors.js";
import { loadLocated, type LocatedOptions } from "../../models/files/load.js";
import { locate, type Located } from "../../models/files/locate.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { createRefusal } from "../../refusals/refusal.js";
import { TRAINING_REFUSALS } from "../../refusals/training.js";
import { runWithRandom } from "../../tensor/random.js";
import { readMatmulPrecision, type MatmulPrecision } from "../../tensor/scope.js";
import { identifyInputs } from "../identity.js";
import { resolveClasses, resolveTemplate } from "../inherited.js";
import {
  isShort,
  planMemory,
  createTooLargeError,
  type Fitting,
  type MemoryPlan,
  type Planned,
} from "../memory/plan.js";
import type { RunOutput } from "../output/following.js";
import { createLine } from "../output/lineage.js";
import type { Identities } from "../output/run-file.js";
import { closeFiles, createReader, type Files, prepare, readFiles } from "../prepare.js";
import type { Profile } from "../profile.js";
import { compareInputs } from "./compare-ranks.js";
import { createSharedReader } from "../read-shares.js";
import { agree, type RunRanks } from "../ranks/run-ranks.js";
import { checkSame, type Resumed } from "../resume.js";
import type { RunContext } from "../run.js";
import type { Settings } from "../settings.js";
import { identifyAdapter } from "../start-adapter.js";
import type { RecordedContext } from "../watched.js";
import { yieldToEventLoop } from "../yield-to-event-loop.js";
import type { Subject } from "./adapter-run.js";
import { reportPlan } from "./start-event.js";

/** What all ranks have found out before a model is loaded. */
interface Inputs {
  data: Files;
  template: ReturnType<typeof resolveTemplate>;
  located: Located | undefined;
  identities: Identities;
  labels: string[] | undefined;
}

/** The preparation of a run, and what it holds. */
export class Preparation {
  readonly precision: MatmulPrecision;
  readonly #settings: Settings;
  readonly #resumed: Resumed | undefined;
  readonly #output: RunOutput;
  readonly #context: RecordedContext;
  /** Aborted when the run is stopped or aborted: before training begins, both end it. */
  readonly #ending: AbortSignal;
  /** The model that was given loaded. */
  readonly #givenModel: PretrainedModel | undefined;
  readonly #restore: () => void;
  #model: PretrainedModel | undefined;
  #files: Files | undefined;
  readonly #replicas: PretrainedModel[] = [];

  constructor(settings: Settings, resumed: Resumed | undefined, output: RunOutput, context: RecordedContext) {
    const { signal, model } = settings;
    const { stopping } = context;
    this.precision = settings.matmulPrecision ?? readMatmulPrecision();
    this.#settings = settings;
    this.#resumed = resumed;
    this.#output = output;
    this.#context = context;
    this.#ending = signal === undefined ? stopping : AbortSignal.any([signal, stopping]);
    this.#givenModel = typeof model === "string" ? undefined : model;
    this.#restore = this.#givenModel === undefined ? () => {} : snapshotModes(this.#givenModel);
    this.#model = this.#givenModel;
  }

  /** Throws the reason if the run was stopped or aborted. */
  throwIfEnding(): void {
    throwIfAborted(this.#ending);
  }

  /** Returns the inputs of the run. Ranks agree after each part. */
  async prepare(profile: Profile | undefined): Promise<Subject> {
    const { ranks } = this.#context;
    const loading = { ...this.#settings, signal: this.#ending };
    // An invalid template is reported before any data is read.
    const template = await agree(ranks, () => resolveTemplate(this.#settings, this.#resumed, this.#context));
    const read =
      ranks === undefined
        ? createReader(loading, this.#context)
        : createSharedReader(ranks, loading, this.#context);
    const data = await readFiles(loading, read);
    this.#files = data;
    this.throwIfEnding();
    const inputs = await agree(ranks, () => this.#findInputs(loading, data, template));
    if (ranks !== undefined) await compareInputs(ranks, inputs.identities);
    this.throwIfEnding();
    const planned: Planned = {
      settings: loading,
      files: inputs.data,
      located: inputs.located,
      labels: inputs.labels,
      template: inputs.template,
      precision: this.precision,
      resumed: this.#resumed !== undefined,
    };
    const { plan, fitting } = await agree(ranks, () => planFitting(planned));
    const chosen = ranks === undefined ? fitting : await chooseForAll(ranks, fitting);
    this.throwIfEnding();
    const memory = plan && reportPlan(plan, chosen);
    const loaded = await agree(ranks, () => this.#load(inputs, planned, chosen, profile));
    const subject = await this.#tokenise(inputs, loaded, memory);
    const [line = subject.line] = (await ranks?.gatherAll(subject.line)) ?? [];
    return { ...subject, line };
  }

  async #findInputs(loading: Settings, data: Files, template: Inputs["template"]): Promise<Inputs> {
    const [settings, resumed] = [this.#settings, this.#resumed];
    const located = this.#givenModel === undefined ? await locateModel(loading, this.#context) : undefined;
    const place = located?.path ?? settings.model;
    const identities = await identifyInputs(place, data);
    if (resumed !== undefined) checkSame(resumed.identities, identities, settings);
    const adapter = await identifyStart(settings, resumed);
    const labels = resolveClasses(data, place, settings, resumed);
    if (settings.packing) checkPacking(data, labels);
    if (labels !== undefined) await this.#output.checkLabels(settings.lora.name ?? "default");
    return { data, template, located, identities: { ...identities, adapter }, labels };
  }

  async #load(
    { located, labels, template }: Inputs,
    planned: Planned,
    chosen: Fitting | undefined,
    profile: Profile | undefined,
  ): Promise<{ model: PretrainedModel; fitted: Settings }> {
    const fitted = { ...planned.settings, ...chosen?.changes };
    const loading = { labels, tokenizer: planned.tokenizer };
    const model = this.#givenModel ?? (await load(located as Located, fitted, loading, this.#context));
    this.#model = model;
    if (template !== undefined) model.tokenizer?.assignTemplates(template);
    const { tokenizer } = model;
    for (const device of this.#settings.devices.slice(1)) {
      const replica = { ...fitted, device };
      const work = () => load(located as Located, replica, { labels, tokenizer }, { emit: () => {} });
      this.#replicas.push(await runWithRandom(this.#settings.seed, work));
    }
    profile?.start(model.device);
    return { model, fitted };
  }

  async #tokenise(
    { data, labels, identities }: Inputs,
    { model, fitted }: { model: PretrainedModel; fitted: Settings },
    memory: Subject["memory"],
  ): Promise<Subject> {
    const { ranks } = this.#context;
    const prepared = await prepare(model, data, labels, fitted, this.#context);
    // Each of these takes some milliseconds; without yielding they would block the event loop together.
    await yieldToEventLoop();
    const line = this.#resumed?.line ?? createLine();
    // A resumed run uses the same commit, even if the hub has a newer one.
    const { revision } = model;
    return {
      model,
      others: this.#replicas,
      settings: { ...fitted, signal: this.#settings.signal, matmulPrecision: this.precision, revision },
      prepared,
      output: this.#output,
      line,
      identities,
      memory,
      ranks,
    };
  }

  /** Frees the models that were loaded, and restores the given one. */
  release(): void {
    if (this.#files !== undefined) closeFiles(this.#files);
    for (const replica of this.#replicas) replica.dispose();
    if (this.#givenModel === undefined) this.#model?.dispose();
    this.#restore();
  }
}

async function planFitting(
  planned: Planned,
): Promise<{ plan: MemoryPlan | undefined; fitting: Fitting | undefined }> {
  const plan = await tryPlan(planned);
  return { plan, fitting: chooseFitting(plan, planned) };
}

/** Returns the changes of the rank that needs most of them, so that all ranks make the same. */
async function chooseForAll(
  ranks: RunRanks,
  localFitting: Fitting | undefined,
): Promise<Fitting | undefined> {
  const all = await ranks.gatherAll(localFitting);
  return all.reduce(
    (most, fitting) => ((fitting?.costs.length ?? 0) > (most?.costs.length ?? 0) ? fitting : most),
    localFitting,
  );
}

/** Returns the identity of the start adapter. A resumed run takes it from the record and does not read the adapter. */
async function identifyStart(
  { adapter }: Settings,
  resumed: Resumed | undefined,
): Promise<string | undefined> {
  if (resumed !== undefined) return resumed.identities.adapter;
  return adapter === undefined ? undefined : identifyAdapter(adapter);
}

/** Returns a function that restores the modes and the chat templates of a loaded model, which a run changes. */
function snapshotModes(model: PretrainedModel): () => void {
  const { training, gradientCheckpointing } = model;
  // The run may assign the template of its adapter or of its options.
  const templates = model.tokenizer?.readAssignedTemplates();
  return () => {
    Object.assign(model.train(training), { gradientCheckpointing });
    model.tokenizer?.assignTemplates(templates);
  };
}

/** Throws `ERR_OPTION` for data that packing does not support. */
export function checkPacking({ train }: Files, labels: readonly string[] | undefined): void {
  if (train.kind === "speech") throw createRefusal(TRAINING_REFUSALS.packedSpeech, train.file);
  if (labels !== undefined) throw createRefusal(TRAINING_REFUSALS.packedLabels, train.file);
}

/** Plans a run's memory. Undefined if it cannot be computed, or if the device is too small and `memory` is not given. */
function tryPlan(planned: Planned): Promise<MemoryPlan | undefined> {
  return planMemory(planned).catch((error: unknown) => {
    // The device itself reports the shortage better, before the first step.
    if (isShort(error) && planned.settings.memory === undefined) return undefined;
    throw error;
  });
}

/** Returns the changes that make the run fit. Throws `ERR_OUT_OF_MEMORY` if none is allowed or none suffices. */
function chooseFitting(plan: MemoryPlan | undefined, planned: Planned): Fitting | undefined {
  if (plan?.fits !== false) return undefined;
  const { fitting } = plan;
  if (planned.settings.memory === undefined || fitting === undefined || fitting.given.length > 0)
    throw createTooLargeError(plan, planned);
  return fitting;
}

/** Locates the model on this machine, after downloading it from a hub if necessary. */
export function locateModel(
  { model, revision, offline, signal }: Settings,
  { emit }: Pick<RunContext, "emit">,
): Promise<Located> {
  return locate(model as string, {
    revision,
    offline,
    signal,
    onNotice: (message) => emit({ type: "warning", message }),
    onProgress: ({ model: name, file, bytesRead, bytes }) =>
      emit({ type: "progress", stage: "download", file: `${name}/${file}`, bytesRead, bytes, tokens: 0 }),
  });
}

/** Loads a classifier if the rows have labels, otherwise the kind of model that its folder declares. */
export async function load(
  located: Located,
  { device, dtype, quantize, offloadWeights, signal }: Settings,
  { labels, tokenizer }: Pick<Planned, "labels" | "tokenizer">,
  context: Pick<RunContext, "emit">,
): Promise<PretrainedModel> {
  const onNotice = (message: string): void => context.emit({ type: "warning", message });
  const options: LocatedOptions = {
    device,
    tokenizer,
    offloadWeights,
    onNotice,
    ...(dtype === undefined ? {} : { dtype }),
    ...(quantize === undefined ? {} : { quantize }),
    ...(signal === undefined ? {} : { signal }),
    ...(labels === undefined ? {} : { task: "sequence-classification", numLabels: labels.length }),
  };
  return loadLocated(located, options);
}
