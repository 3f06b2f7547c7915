/** Runs a fine-tuning, from its options to an adapter on the disk. */
import { basename, resolve } from "node:path";

import { countCpuThreads, type Priority } from "../../device/cpu-use.js";
import { throwIfAborted } from "../../errors.js";
import { loadLocated, type LocatedOptions } from "../../models/files/load.js";
import { locate, type Located } from "../../models/files/locate.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { runWithRandom } from "../../tensor/random.js";
import { matmulPrecision, withCheckedCpuUse, withMatmulPrecision } from "../../tensor/scope.js";
import { AdapterRun } from "./adapter-run.js";
import { DEFAULT_PRIORITY } from "../default-priority.js";
import { yieldToEventLoop } from "../yield-to-event-loop.js";
import type { EndEvent, FinetuneResult, TrainEvent } from "../events.js";
import { identifyInputs } from "../identity.js";
import { resolveClasses, resolveTemplate } from "../inherited.js";
import { listGiven } from "../changeable.js";
import {
  isShort,
  planMemory,
  createTooLargeError,
  type Fitting,
  type MemoryPlan,
  type Planned,
} from "../memory/plan.js";
import type { FinetuneOptions } from "../options.js";
import { OutputFolder } from "../output/folder.js";
import { createLine } from "../output/lineage.js";
import { closeFiles, type Files, prepare, readFiles } from "../prepare.js";
import { Profile } from "../profile.js";
import { checkOwnEvents, RunRecorder } from "../recorder.js";
import { checkSame, resolveResume, prepareResume, type Resumed } from "../resume.js";
import { prepareDevices } from "../replicas/devices.js";
import type { RunContext } from "../run.js";
import { checkKinds, DEFAULT_OUTPUT, parseSettings, type Settings } from "../settings.js";
import { reportPlan } from "./start-event.js";
import { identifyAdapter, checkOutput, completeFromAdapter } from "../start-adapter.js";
import type { RecordedContext, Watched } from "../watched.js";
import { TRAINING_REFUSALS } from "../../refusals/training.js";
import { createRefusal } from "../../refusals/refusal.js";

/** The key of an option for tests: a clock in milliseconds that replaces `performance.now`. */
export const CLOCK = Symbol("clock");

/** Implements `finetune`; see there. */
export async function runFinetune(
  options: FinetuneOptions,
  context: RunContext,
  watched: Watched,
): Promise<FinetuneResult> {
  const began = performance.now();
  checkKinds(options);
  throwIfAborted(options.signal);
  const recorder = new RunRecorder((message) => context.emit({ type: "warning", message }));
  const emit = (event: TrainEvent): void => {
    recorder.record(event);
    context.emit(event);
  };
  watched.recorder = recorder;
  watched.title = basename(resolve(options.output ?? DEFAULT_OUTPUT));
  const { dashboard = false } = options;
  if (dashboard !== false) {
    const { url } = await watched.open(dashboard === true ? 0 : dashboard);
    context.emit({ type: "dashboard", url });
  }
  const { [CLOCK]: now } = options as FinetuneOptions & { readonly [CLOCK]?: () => number };
  const end = await runWithLock(options, { ...context, emit, recorder, watched, now }, began);
  context.emit(end);
  const { type: _, seconds: _seconds, ...result } = end;
  return result;
}

/** Runs `work` and records its end, whether result or failure. */
export async function recordEnd(
  work: () => Promise<FinetuneResult>,
  { recorder, watched }: Pick<RecordedContext, "recorder" | "watched">,
  { signal }: Pick<Settings, "signal">,
  began: number,
): Promise<EndEvent> {
  let abandoned = false;
  try {
    const result = await work();
    const end: EndEvent = { type: "end", ...result, seconds: (performance.now() - began) / 1000 };
    recorder.record(end);
    abandoned = result.adapter === "";
    return end;
  } catch (error) {
    const { message, code } = error as { message?: unknown; code?: unknown };
    // A run that was aborted or cannot write removes its events, unless it has saved something.
    abandoned = signal?.aborted === true || code === "ERR_WRITE";
    recorder.record({
      type: "failed",
      message: typeof message === "string" ? message : String(error),
      ...(typeof code === "string" && { code }),
    });
    throw error;
  } finally {
    await recorder.flush();
    await watched.waitForPages();
    await recorder.close({ abandoned });
  }
}

/** Runs a fine-tuning while holding the lock of its output folder. */
async function runWithLock(
  options: FinetuneOptions,
  context: RecordedContext,
  began: number,
): Promise<EndEvent> {
  const origin = await resolveResume(options);
  if (origin === undefined) {
    const asked = parseSettings(completeFromAdapter(options));
    checkOutput(asked);
    const settings = await prepareDevices(asked);
    const output = await OutputFolder.claim(settings.output);
    try {
      await output.checkFree(settings.overwrite, readAdapterName(settings));
      await checkOwnEvents(output.path, settings.log);
      const work = bindCpuUse(settings, options, () => runWithProfile(settings, undefined, output, context));
      return await recordEnd(work, context, settings, began);
    } finally {
      await output.release();
    }
  }
  const path = options.output ?? origin.home;
  const output = await OutputFolder.claim(path);
  try {
    const resumed = await prepareResume(origin, options);
    const { options: own, notices } = dropExcessThreads(resumed.options, options);
    const completed = parseSettings({ ...dropSharesOfOthers(own, options), output: path });
    const settings = await prepareDevices({ ...completed, given: listGiven(options) });
    if (resumed.elsewhere) await output.checkFree(false, readAdapterName(settings));
    else await output.checkOwn(undefined, readAdapterName(settings));
    await checkOwnEvents(output.path, settings.log);
    for (const message of [...resumed.notices, ...notices]) context.emit({ type: "warning", message });
    const work = bindCpuUse(settings, options, () => runWithProfile(settings, resumed, output, context));
    return await recordEnd(work, context, settings, began);
  } finally {
    await output.release();
  }
}

/** Returns `work` with the run's threads and priority applied. */
function bindCpuUse<T>({ threads, priority }: Settings, options: FinetuneOptions, work: () => T): () => T {
  const { [DEFAULT_PRIORITY]: byDefault } = options as { readonly [DEFAULT_PRIORITY]?: Priority };
  return () => withCheckedCpuUse({ threads, priority: priority ?? byDefault }, work);
}

/** Drops a recorded thread count above this machine's. `parseSettings` checks a count that is given now. */
function dropExcessThreads(
  own: FinetuneOptions,
  given: FinetuneOptions,
): { options: FinetuneOptions; notices: string[] } {
  const { threads, ...rest } = own;
  const all = countCpuThreads();
  if (threads === undefined || given.threads !== undefined || threads <= all)
    return { options: own, notices: [] };
  const notice = `resume: the run had ${threads} threads, and the cpu of this machine has ${all}; it continues with the default`;
  return { options: rest, notices: [notice] };
}

/** Drops recorded shares if the run continues on other devices and no shares are given now. */
function dropSharesOfOthers(own: FinetuneOptions, given: FinetuneOptions): FinetuneOptions {
  if (given.device === undefined || given.deviceShares !== undefined) return own;
  return { ...own, deviceShares: undefined };
}

function readAdapterName({ lora }: Settings): string {
  return lora.name ?? "default";
}

/** Returns the identity of the start adapter. A resumed run takes it from the record and does not read the adapter. */
async function identifyStart(
  { adapter }: Settings,
  resumed: Resumed | undefined,
): Promise<string | undefined> {
  if (resumed !== undefined) return resumed.identities.adapter;
  return adapter === undefined ? undefined : identifyAdapter(adapter);
}

async function runWithProfile(
  settings: Settings,
  resumed: Resumed | undefined,
  output: OutputFolder,
  context: RecordedContext,
): Promise<FinetuneResult> {
  const profile = settings.profile === undefined ? undefined : new Profile(settings.profile);
  try {
    const result = await runWithRandom(settings.seed, () =>
      train(settings, resumed, output, context, profile),
    );
    const event = await profile?.finish();
    if (event !== undefined) context.emit(event);
    return result;
  } finally {
    profile?.discard();
  }
}

async function train(
  settings: Settings,
  resumed: Resumed | undefined,
  output: OutputFolder,
  context: RecordedContext,
  profile: Profile | undefined,
): Promise<FinetuneResult> {
  const { stopping } = context;
  const { signal } = settings;
  const precision = settings.matmulPrecision ?? matmulPrecision();
  // Before training begins, stopping the run aborts it.
  const early = signal === undefined ? stopping : AbortSignal.any([signal, stopping]);
  const given = typeof settings.model === "string" ? undefined : settings.model;
  const restore = given === undefined ? undefined : noteModes(given);
  let model = given;
  let files: Files | undefined;
  const others: PretrainedModel[] = [];
  try {
    let run: AdapterRun;
    try {
      const loading = { ...settings, signal: early };
      // An invalid template is reported before any data is read.
      const template = resolveTemplate(settings, resumed, context);
      files = await readFiles(loading, context);
      const data = files;
      throwIfAborted(early);
      const located = given === undefined ? await locateModel(loading, context) : undefined;
      const place = located?.path ?? settings.model;
      const identities = await identifyInputs(place, data);
      if (resumed !== undefined) checkSame(resumed.identities, identities, settings);
      const adapter = await identifyStart(settings, resumed);
      const labels = resolveClasses(data, place, settings, resumed);
      if (settings.packing) checkPacking(data, labels);
      if (labels !== undefined) await output.checkLabels(readAdapterName(settings));
      throwIfAborted(early);
      const planned: Planned = {
        settings: loading,
        files,
        located,
        labels,
        template,
        precision,
        resumed: resumed !== undefined,
      };
      const plan = await planFor(planned);
      const chosen = chooseFitting(plan, planned);
      const settled = { ...settings, ...chosen?.changes, matmulPrecision: precision };
      const fitted = { ...loading, ...chosen?.changes };
      throwIfAborted(early);
      model ??= await load(located as Located, fitted, { labels, tokenizer: planned.tokenizer }, context);
      if (template !== undefined) model.tokenizer?.assignTemplates(template);
      const { tokenizer } = model;
      for (const device of settings.devices.slice(1)) {
        const replica = { ...fitted, device };
        const loading = () => load(located as Located, replica, { labels, tokenizer }, { emit: () => {} });
        others.push(await runWithRandom(settings.seed, loading));
      }
      profile?.start(model.device);
      const prepared = await prepare(model, data, labels, fitted, context);
      // Each of these takes some milliseconds; without yielding they would block the event loop together.
      await yieldToEventLoop();
      const line = resumed?.line ?? createLine();
      // A resumed run uses the same commit, even if the hub has a newer one.
      const { revision } = model;
      const subject = {
        model,
        others,
        settings: { ...settled, revision },
        prepared,
        output,
        line,
        identities: { ...identities, adapter },
      };
      run = new AdapterRun({ ...subject, memory: plan && reportPlan(plan, chosen) }, context);
      await yieldToEventLoop();
      throwIfAborted(early);
    } catch (error) {
      if (!stopping.aborted || signal?.aborted) throw error;
      return { adapter: "", loss: null, evalLoss: null, steps: 0, stopped: true };
    }
    return await withMatmulPrecision(precision, () => run.run(resumed));
  } finally {
    if (files !== undefined) closeFiles(files);
    for (const replica of others) replica.dispose();
    if (restore === undefined) model?.dispose();
    else restore();
  }
}

/** Returns a function that restores the modes and the chat templates of a loaded model, which a run changes. */
function noteModes(model: PretrainedModel): () => void {
  const { training, gradientCheckpointing } = model;
  // The run may assign the template of its adapter or of its options.
  const templates = model.tokenizer?.assignedTemplates();
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
function planFor(planned: Planned): Promise<MemoryPlan | undefined> {
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
  { device, dtype, quantize, signal }: Settings,
  { labels, tokenizer }: Pick<Planned, "labels" | "tokenizer">,
  context: Pick<RunContext, "emit">,
): Promise<PretrainedModel> {
  const onNotice = (message: string): void => context.emit({ type: "warning", message });
  const options: LocatedOptions = {
    device,
    tokenizer,
    onNotice,
    ...(dtype === undefined ? {} : { dtype }),
    ...(quantize === undefined ? {} : { quantize }),
    ...(signal === undefined ? {} : { signal }),
    ...(labels === undefined ? {} : { task: "sequence-classification", numLabels: labels.length }),
  };
  return loadLocated(located, options);
}
