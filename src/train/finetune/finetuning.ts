/** Runs a fine-tuning, from its options to an adapter on the disk. */
import { cpus } from "node:os";
import { basename, resolve } from "node:path";

import { countCpuThreads, type Priority } from "../../device/cpu-use.js";
import { throwIfAborted } from "../../errors.js";
import type { Ranks } from "../../ranks/ranks.js";
import { runWithRandom } from "../../tensor/random.js";
import { runWithCheckedCpuUse, withMatmulPrecision } from "../../tensor/scope.js";
import { listGiven } from "../changeable.js";
import { DEFAULT_PRIORITY } from "../default-priority.js";
import type { EndEvent, FinetuneResult, TrainEvent } from "../events.js";
import { OPTIONS } from "../options/table.js";
import type { FinetuneOptions } from "../options.js";
import { FollowingOutput, type RunOutput } from "../output/following.js";
import { OutputFolder } from "../output/folder.js";
import { Profile } from "../profile.js";
import { compareOptions } from "./compare-ranks.js";
import { agree, RunRanks } from "../ranks/run-ranks.js";
import { checkOwnEvents, RunRecorder, SilentRecorder } from "../recorder.js";
import { prepareDevices } from "../replicas/devices.js";
import { resolveResume, prepareResume, type Resumed } from "../resume.js";
import type { RunContext } from "../run.js";
import { checkKinds, DEFAULT_OUTPUT, parseSettings, type Settings } from "../settings.js";
import { checkOutput, completeFromAdapter } from "../start-adapter.js";
import type { RecordedContext, Watched } from "../watched.js";
import { yieldToEventLoop } from "../yield-to-event-loop.js";
import { AdapterRun } from "./adapter-run.js";
import { Preparation } from "./preparation.js";

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
  const { ranks: given } = options;
  const ranks = given === undefined || given.size === 1 ? undefined : joinRanks(options, given, context);
  const follows = ranks !== undefined && !ranks.isFirst;
  const warn = (message: string): void => context.emit({ type: "warning", message });
  const recorder = follows ? new SilentRecorder() : new RunRecorder(warn);
  const emit = (event: TrainEvent): void => {
    recorder.record(event);
    context.emit(event);
  };
  watched.recorder = recorder;
  watched.title = basename(resolve(options.output ?? DEFAULT_OUTPUT));
  const { dashboard = false } = options;
  if (dashboard !== false && !follows) {
    const { url } = await watched.open(dashboard === true ? 0 : dashboard);
    context.emit({ type: "dashboard", url });
  }
  const { [CLOCK]: now } = options as FinetuneOptions & { readonly [CLOCK]?: () => number };
  const { stopping } = ranks ?? context;
  const end = await runWithLock(
    options,
    { ...context, stopping, emit, recorder, watched, now, ranks },
    began,
  );
  context.emit(end);
  const { type: _, seconds: _seconds, ...result } = end;
  return result;
}

function joinRanks({ deterministic }: FinetuneOptions, ranks: Ranks, { stopping }: RunContext): RunRanks {
  return new RunRanks(ranks, { asked: stopping, inOrder: deterministic ?? OPTIONS.deterministic.default });
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
  const { ranks } = context;
  const origin = await agree(ranks, () => resolveResume(options));
  if (origin === undefined) {
    const settings = await settle(ranks, () => {
      const parsed = parseSettings(completeFromAdapter(options));
      checkOutput(parsed);
      return parsed;
    });
    const output = await agree(ranks, () => claimOutput(settings.output, ranks));
    try {
      await agree(ranks, async () => {
        await output.checkFree(settings.overwrite, readAdapterName(settings));
        if (output.writes) await checkOwnEvents(output.path, settings.log);
      });
      const work = bindCpuUse(settings, options, () => runWithProfile(settings, undefined, output, context));
      return await recordEnd(work, context, settings, began);
    } finally {
      await output.release();
    }
  }
  const path = options.output ?? origin.home;
  const output = await agree(ranks, () => claimOutput(path, ranks));
  try {
    const resumed = await agree(ranks, () => prepareResume(origin, options));
    const { options: fitted, notices } = dropExcessThreads(resumed.options, options);
    const settings = await settle(ranks, () => {
      const completed = parseSettings({
        ...dropSharesOfOthers(fitted, options),
        ranks: options.ranks,
        output: path,
      });
      return { ...completed, given: listGiven(options) };
    });
    await agree(ranks, async () => {
      if (resumed.elsewhere) await output.checkFree(false, readAdapterName(settings));
      else await output.checkOwn(undefined, readAdapterName(settings));
      if (output.writes) await checkOwnEvents(output.path, settings.log);
    });
    for (const message of [...resumed.notices, ...notices]) context.emit({ type: "warning", message });
    const work = bindCpuUse(settings, options, () => runWithProfile(settings, resumed, output, context));
    return await recordEnd(work, context, settings, began);
  } finally {
    await output.release();
  }
}

/** Returns the settings that `parse` makes, which are the same on all ranks, with the devices of this rank. */
async function settle(ranks: RunRanks | undefined, parse: () => Settings): Promise<Settings> {
  const settings = await agree(ranks, parse);
  if (ranks !== undefined) await compareOptions(ranks, settings);
  const prepared = await agree(ranks, () => prepareDevices(settings));
  if (ranks === undefined) return prepared;
  // Measured shares may differ from rank to rank.
  const [deviceShares] = await ranks.gatherAll(prepared.deviceShares);
  return { ...prepared, deviceShares };
}

function claimOutput(path: string, ranks: RunRanks | undefined): Promise<RunOutput> | RunOutput {
  return ranks === undefined || ranks.isFirst ? OutputFolder.claim(path) : new FollowingOutput(path);
}

/** Returns `work` with the run's threads and priority applied. */
function bindCpuUse<T>(
  { threads, priority, ranks }: Settings,
  options: FinetuneOptions,
  work: () => T,
): () => T {
  const { [DEFAULT_PRIORITY]: byDefault } = options as { readonly [DEFAULT_PRIORITY]?: Priority };
  const use = { threads: threads ?? shareThreads(ranks), priority: priority ?? byDefault };
  return () => runWithCheckedCpuUse(use, work);
}

/**
 * Returns the number of threads for each of several ranks of this machine. Undefined for a single one, and where the
 * launcher has bound each rank to some cores, all of which it may use.
 */
function shareThreads(ranks: Ranks | undefined): number | undefined {
  const all = countCpuThreads();
  if (ranks === undefined || ranks.localSize === 1 || all < cpus().length) return undefined;
  return Math.max(1, Math.floor(all / ranks.localSize));
}

/** Drops a recorded thread count above this machine's. `parseSettings` checks a count that is given now. */
function dropExcessThreads(
  stored: FinetuneOptions,
  given: FinetuneOptions,
): { options: FinetuneOptions; notices: string[] } {
  const { threads, ...rest } = stored;
  const all = countCpuThreads();
  if (threads === undefined || given.threads !== undefined || threads <= all)
    return { options: stored, notices: [] };
  const notice = `resume: the run had ${threads} threads, and the cpu of this machine has ${all}; it continues with the default`;
  return { options: rest, notices: [notice] };
}

/** Drops recorded shares if the run continues on other devices and no shares are given now. */
function dropSharesOfOthers(stored: FinetuneOptions, given: FinetuneOptions): FinetuneOptions {
  if (given.device === undefined || given.deviceShares !== undefined) return stored;
  return { ...stored, deviceShares: undefined };
}

function readAdapterName({ lora }: Settings): string {
  return lora.name ?? "default";
}

async function runWithProfile(
  settings: Settings,
  resumed: Resumed | undefined,
  output: RunOutput,
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
  output: RunOutput,
  context: RecordedContext,
  profile: Profile | undefined,
): Promise<FinetuneResult> {
  const { stopping } = context;
  const { signal } = settings;
  const preparation = new Preparation(settings, resumed, output, context);
  try {
    let run: AdapterRun;
    try {
      run = new AdapterRun(await preparation.prepare(profile), context);
      await yieldToEventLoop();
      preparation.throwIfEnding();
    } catch (error) {
      if (!stopping.aborted || signal?.aborted) throw error;
      return { adapter: "", loss: null, evalLoss: null, steps: 0, stopped: true };
    }
    return await withMatmulPrecision(preparation.precision, () => run.run(resumed));
  } finally {
    preparation.release();
  }
}
