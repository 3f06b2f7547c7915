/** The loop over optimizer steps, for any model and loss. */
import { memory, type Device } from "../device/device.js";
import { readAbortReason, LowrankError, throwIfAborted } from "../errors.js";
import type { GradientExchange, Optimizer } from "../optim/optimizer.js";
import type { Replica } from "../optim/replica.js";
import type { Schedule } from "../optim/schedule.js";
import type { Tensor } from "../tensor/tensor.js";
import { yieldToEventLoop } from "./yield-to-event-loop.js";
import { CancelScope } from "./cancel-scope.js";
import { Divergence } from "./divergence.js";
import type { Evaluation } from "./evaluate.js";
import type { LoopEvent } from "./events.js";
import { Pace } from "./pace.js";
import { addPart, recordPart, recordUpdate } from "./record.js";
import type { RunRanks, SummedStep } from "./ranks/run-ranks.js";
import type { RunContext } from "./run.js";
import { type SaveInterval, SaveTimer } from "./options/save-interval.js";

/** The work of one optimizer step. */
export interface StepWork {
  /** Each records a forward pass and returns a loss; the step trains on their sum, over all ranks. */
  losses: (() => Tensor)[];
  /** Further parts of the loss, after `losses`: each records forward and backward itself and returns its loss. */
  recorded?: readonly (() => Promise<Tensor>)[] | undefined;
  /** Tokens read; 0 for a model without tokens. */
  tokens: number;
  /** Tokens read by this rank; by default all. */
  ownTokens?: number | undefined;
  /** Tokens, or rows, that the step trains on. */
  trained: number;
  /** Further figures of the step, collected while the losses are recorded. */
  metrics?: StepMetrics | undefined;
}

/** Figures of a step, by name. */
export interface StepMetrics {
  /** Starts reading the figures. */
  read(): Promise<Readonly<Record<string, number>> | undefined>;
  /** Frees the figures of a step that fails before `read`. */
  discard(): void;
}

export interface LoopOptions {
  device: Exclude<Device, "auto">;
  optimizer: Optimizer;
  /** Copies of the trained parameters on other devices, on which some of the losses are computed. */
  replicas?: readonly DeviceReplica[] | undefined;
  /** The processes that train the same parameters on other rows. */
  ranks?: RunRanks | undefined;
  /** The factor applied to the learning rates that the optimizer's groups have when the loop begins. */
  schedule: Schedule;
  /** The number of steps completed before. */
  first: number;
  /** The number of steps of the whole run; undefined ends the run with its data. */
  steps: number | undefined;
  /** Returns the work of step `step`, counted from 0; undefined at the end of the data. */
  work: (step: number) => Promise<StepWork | undefined> | StepWork | undefined;
  clipNorm: number | undefined;
  /** Rejects with the reason of `ending` when that is aborted. Awaits `between` before each batch. */
  evaluate: ((ending: AbortSignal, between: () => Promise<void>) => Promise<Evaluation>) | undefined;
  evalEvery: number | undefined;
  /** Called after each evaluation; without `evaluate`, before the first step and after the last. Never rejects. */
  sample?: ((step: number) => Promise<void>) | undefined;
  /** Saves a checkpoint after `step` steps and returns its folder. */
  save: ((step: number) => Promise<string>) | undefined;
  saveEvery: SaveInterval;
  /** Whether the last step is saved. A run that is stopped always saves. */
  savesEnd?: boolean | undefined;
  /** The checkpoint that the run continues from. */
  saved?: ContinuedCheckpoint | undefined;
  /**
   * Called once for each checkpoint, when the loss of the weights in it is known: they are good, or the run cannot
   * usefully continue from them.
   */
  checked?: ((path: string, good: boolean) => Promise<void>) | undefined;
  /** Computes a loss of the weights after `step` steps, for a run whose last weights no evaluation has checked. */
  check?: ((step: number) => Promise<number>) | undefined;
  /** Watches the losses; the default has no bound for them. */
  divergence?: Divergence | undefined;
  /** Milliseconds on a monotonic clock; `performance.now` by default. */
  now?: (() => number) | undefined;
  /** Receives each evaluation; may request a checkpoint or the end of the run. */
  judge?: ((step: number, evaluation: Evaluation) => { save: boolean; end: boolean }) | undefined;
  signal: AbortSignal | undefined;
  /**
   * Whether an abort also skips work that is recorded already. The run then ends sooner, but the number of completed
   * optimizer updates is unknown.
   */
  skips: boolean;
  context: RunContext<LoopEvent>;
}

/** A copy of the trained parameters, and its device. */
export interface DeviceReplica {
  device: Exclude<Device, "auto">;
  parameters: Replica;
}

/** The checkpoint that a run continues from. */
export interface ContinuedCheckpoint {
  path: string;
  /** Whether its evaluation is missing. */
  unevaluated: boolean;
  /** The newest good checkpoint up to this one. */
  good?: string | undefined;
}

export interface LoopResult {
  steps: number;
  loss: number | null;
  evalLoss: number | null;
  stopped: boolean;
  /** Whether `judge` requested the end before the last step. */
  early: boolean;
}

/** The figures of a step. */
interface Figures {
  loss: number;
  norm: number;
  metrics: Readonly<Record<string, number>> | undefined;
  ranks: SummedStep["ranks"] | undefined;
}

/** A recorded step whose figures are not read yet. */
interface Pending {
  step: number;
  learningRate: number;
  tokens: number;
  trained: number;
  figures: Promise<Figures>;
}

/**
 * Runs steps until the planned number, the end of the data, or a stop. Step n + 1 is recorded while step n runs on the
 * device, and then the figures of n are awaited, so that at most two steps are in flight. The loop yields to the event
 * loop between micro-batches.
 *
 * Errors: `ERR_NOT_FINITE` if a step's loss or gradient is not finite, with parameters and optimizer state unchanged; the
 * signal's reason within a step of an abort.
 */
export async function runLoop(options: LoopOptions): Promise<LoopResult> {
  const cancelScope = new CancelScope(listDevices(options), options.skips ? options.signal : undefined);
  const rates = options.optimizer.groups.map(({ lr }) => lr);
  try {
    return await new Loop(options, cancelScope, rates).run();
  } catch (error) {
    if (options.signal?.aborted) throw readAbortReason(options.signal);
    throw error;
  } finally {
    cancelScope.release();
    for (const [i, group] of options.optimizer.groups.entries()) group.lr = rates[i] as number;
  }
}

class Loop {
  readonly #options: LoopOptions;
  readonly #cancelScope: CancelScope;
  readonly #rates: number[];
  readonly #pace = new Pace();
  #pending: Pending | undefined;
  #done: number;
  #trained = 0;
  #loss: number | null = null;
  #evalLoss: number | null = null;
  #evaluatedAt = -1;
  #evaluated: { step: number; loss: number } | undefined;
  /** The newest checkpoint, and whether its weights have been judged. */
  #lastCheckpoint: { step: number; path: string; checked: boolean } | undefined;
  /** The newest checkpoint that is known to be good. */
  #lastGood: string | undefined;
  /** Metrics that a warning has named. */
  readonly #reported = new Set<string>();
  readonly #timer: SaveTimer | undefined;
  readonly #divergence: Divergence;

  constructor(options: LoopOptions, cancelScope: CancelScope, rates: number[]) {
    this.#options = options;
    this.#cancelScope = cancelScope;
    this.#done = options.first;
    this.#rates = rates;
    const { first, saved, saveEvery, now = () => performance.now() } = options;
    this.#lastGood = saved?.good;
    if (saved !== undefined)
      this.#lastCheckpoint = { step: first, path: saved.path, checked: saved.path === saved.good };
    if (saveEvery !== undefined && "seconds" in saveEvery)
      this.#timer = new SaveTimer(saveEvery.seconds, now);
    this.#divergence = options.divergence ?? new Divergence();
  }

  async run(): Promise<LoopResult> {
    const { first, steps = Infinity, context, signal, work } = this.#options;
    let early = await this.#begin();
    for (let step = first; step < steps && !context.stopping.aborted && !early; step++) {
      throwIfAborted(signal);
      await this.#pause();
      if (context.stopping.aborted) break;
      throwIfAborted(signal);
      const next = await work(step);
      if (next === undefined) break;
      const recorded = await this.#record(step, next);
      await this.#settle();
      this.#pending = recorded;
      const done = step + 1;
      const evaluates = this.#evaluatesAt(done);
      const saves = this.#savesAt(done);
      if (evaluates || saves) await this.#settle();
      const verdict = evaluates ? await this.#evaluate(done) : undefined;
      if (saves || verdict?.save === true) await this.#save(done);
      early = verdict?.end === true && done < steps;
    }
    await this.#settle();
    throwIfAborted(signal);
    const stopped = context.stopping.aborted && this.#done < steps && !early;
    // A stopped run saves first, because the caller may not wait for an evaluation. Before the first step there is
    // nothing to save.
    if (stopped && this.#done > 0) await this.#save(this.#done);
    if (!stopped && this.#evaluatedAt !== this.#done) {
      const verdict = await this.#evaluate(this.#done);
      if (verdict?.save === true) await this.#save(this.#done);
    }
    if (!stopped && this.#done > first) await this.#complete();
    return { steps: this.#done, loss: this.#loss, evalLoss: this.#evalLoss, stopped, early };
  }

  /** Pauses if a pause was requested: between two steps, or between two batches of an evaluation. */
  async #pause(): Promise<void> {
    const { context, signal, now = () => performance.now() } = this.#options;
    const { pausing, stopping } = context;
    if (!pausing.requested) return;
    await this.#settle();
    let began: number | undefined;
    const wait = (): Promise<void> =>
      pausing.wait([stopping, signal], () => {
        began = now();
        context.emit({ type: "paused", step: this.#done });
      });
    await (this.#timer === undefined ? wait() : this.#timer.excludePause(wait));
    this.#pace.pause();
    if (began === undefined) return;
    const seconds = (now() - began) / 1000;
    if (!stopping.aborted && signal?.aborted !== true)
      context.emit({ type: "resumed", step: this.#done, seconds });
  }

  #evaluatesAt(done: number): boolean {
    const { evalEvery } = this.#options;
    return evalEvery !== undefined && done % evalEvery === 0;
  }

  #savesAt(done: number): boolean {
    const { saveEvery } = this.#options;
    if (saveEvery === undefined) return false;
    if ("steps" in saveEvery) return done % saveEvery.steps === 0;
    const evaluations = Number(this.#evaluatesAt(done)) + Number(this.#evaluatesAt(done + 1));
    return this.#timer?.isDue(evaluations) === true;
  }

  /** Saves the last step and judges its weights, because no further step computes their loss. */
  async #complete(): Promise<void> {
    const { savesEnd = false, check } = this.#options;
    const step = this.#done;
    if (savesEnd) await this.#save(step);
    const evaluated = this.#evaluated?.step === step ? this.#evaluated.loss : undefined;
    const loss = evaluated ?? (await check?.(step));
    if (loss === undefined) return;
    if (!Number.isFinite(loss)) await this.#fail(`step ${step}: the loss after the update is ${loss}`, step);
    const before = this.#divergence.diverged;
    const verdict = this.#divergence.judge(loss);
    if (verdict !== "unknown") await this.#mark(verdict === "good");
    if (verdict === "good" || before) return;
    const was = this.#loss === null ? "" : ` (${this.#loss.toFixed(2)} before it)`;
    const found =
      verdict === "bad" ? "the model no longer depends on its input" : "training may have diverged";
    const message = `step ${step}: the loss after the last update is ${loss.toFixed(2)}${was}: ${found}; try the adapter before you use it${this.#findFallback()}`;
    this.#options.context.emit({ type: "warning", message });
  }

  /** Runs the evaluation that is due before the first step; returns whether the run ends there. */
  async #begin(): Promise<boolean> {
    const { first, steps = Infinity, evalEvery, saved } = this.#options;
    // A stopped run does not wait for the evaluation that is due after its last step.
    const missed = saved?.unevaluated === true && evalEvery !== undefined && first % evalEvery === 0;
    if (first > 0 && !missed) return false;
    const verdict = await this.#evaluate(first);
    if (verdict?.save === true) {
      this.#lastCheckpoint = undefined;
      await this.#save(first);
    }
    return verdict?.end === true && first < steps;
  }

  /** Records forward, backward and update of one step, and starts reading its figures. */
  async #record(step: number, work: StepWork): Promise<Pending> {
    const { losses, recorded = [], tokens, trained, metrics } = work;
    const { optimizer, schedule, replicas = [], ranks } = this.#options;
    for (const [i, group] of optimizer.groups.entries())
      group.lr = (this.#rates[i] as number) * schedule(step);
    // The last loss completes the gradients, unless other parts or other devices add to them afterwards.
    const last = recorded.length === 0 && replicas.length === 0 ? losses.length - 1 : undefined;
    let exchange: GradientExchange | undefined;
    let total: Tensor | undefined;
    try {
      for (const [i, loss] of losses.entries()) {
        total = this.#cancelScope.run(() => {
          if (i === last) exchange = ranks?.beginSum(optimizer);
          return recordPart(loss, total, exchange);
        });
        await yieldToEventLoop();
        throwIfAborted(this.#options.signal);
      }
      for (const part of recorded) {
        total = addPart(await part(), total);
        throwIfAborted(this.#options.signal);
      }
      const figures = this.#cancelScope.run(() => this.#recordUpdate(work, total, exchange));
      // The figures are awaited a step later; until then a rejection must not count as unhandled.
      figures.catch(() => {});
      return { step, learningRate: optimizer.groups[0]?.lr ?? 0, tokens, trained, figures };
    } catch (error) {
      exchange?.cancel();
      optimizer.zeroGrad();
      metrics?.discard();
      throw error;
    } finally {
      total?.dispose();
    }
  }

  /** Records the update of a step with this loss, undefined for a rank without rows, and starts reading its figures. */
  async #recordUpdate(
    { tokens, ownTokens = tokens, metrics }: StepWork,
    total: Tensor | undefined,
    exchange: GradientExchange | undefined,
  ): Promise<Figures> {
    const { optimizer, clipNorm, replicas = [], ranks } = this.#options;
    // Read first: with ranks, the device waits for the sums of the gradients.
    const sum = total?.item() ?? Promise.resolve(0);
    let summed: Promise<SummedStep> | undefined;
    const copies = replicas.map(({ parameters }) => parameters);
    const norm = recordUpdate(optimizer, clipNorm, copies, () => {
      const memoryBytes = this.#countHeldBytes();
      const sent = exchange ?? ranks?.beginSum(optimizer);
      if (sent !== undefined)
        summed = ranks?.sumGradients(sent, { loss: sum, tokens: ownTokens, memoryBytes });
    });
    const reads = Promise.all([sum, norm.item(), metrics?.read(), summed]);
    norm.dispose();
    const [loss, normValue, figures, sums] = await reads;
    return { loss: sums?.loss ?? loss, norm: normValue, metrics: figures, ranks: sums?.ranks };
  }

  #countHeldBytes(): number {
    return listDevices(this.#options).reduce((sum, device) => sum + readHeldBytes(device), 0);
  }

  /** Waits for the step in flight, checks its figures and emits its event. */
  async #settle(): Promise<void> {
    const pending = this.#pending;
    if (pending === undefined) return;
    const { context, steps } = this.#options;
    const { loss, norm: gradNorm, metrics, ranks } = await pending.figures;
    this.#pending = undefined;
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm))
      await this.#createNotFiniteError(pending, loss, gradNorm);
    this.#done = pending.step + 1;
    this.#loss = loss;
    this.#trained += pending.trained;
    this.#pace.add(pending.tokens);
    const { learningRate, trained } = pending;
    const figures = { step: this.#done, loss, gradNorm, learningRate, trained };
    const { sound, warning } = this.#divergence.add(figures);
    context.emit({
      type: "step",
      step: this.#done,
      steps: steps ?? this.#done,
      loss,
      learningRate: pending.learningRate,
      gradNorm,
      tokens: this.#trained,
      tokensPerSecond: this.#pace.tokensPerSecond,
      etaSeconds: this.#pace.secondsPerStep * ((steps ?? this.#done) - this.#done),
      memoryBytes: this.#countHeldBytes(),
      ...(ranks !== undefined && { ranks }),
      merged: 1,
      ...(metrics !== undefined && { metrics }),
    });
    this.#warnOfMetrics(metrics);
    // The step ran on the weights of the newest checkpoint, or on weights trained from them.
    const { diverged } = this.#divergence;
    if (sound || diverged) await this.#mark(!diverged);
    if (warning !== undefined) context.emit({ type: "warning", message: warning + this.#findFallback() });
  }

  /** Warns once about each metric that is not finite. Metrics do not affect training. */
  #warnOfMetrics(metrics: Readonly<Record<string, number>> = {}): void {
    for (const [name, value] of Object.entries(metrics)) {
      if (Number.isFinite(value) || this.#reported.has(name)) continue;
      this.#reported.add(name);
      const message = `step ${this.#done}: the metric ${JSON.stringify(name)} is ${value}; training continues`;
      this.#options.context.emit({ type: "warning", message });
    }
  }

  /** Records whether the newest checkpoint is good. Only the first judgement counts. */
  async #mark(good: boolean): Promise<void> {
    const saved = this.#lastCheckpoint;
    if (saved === undefined || saved.checked) return;
    saved.checked = true;
    if (good) this.#lastGood = saved.path;
    // A failure to write the mark, for example on a full disk, does not end the run.
    await this.#options.checked?.(saved.path, good).catch(() => {});
  }

  #findFallback(): string {
    return this.#lastGood === undefined ? "" : `; the last good checkpoint is ${this.#lastGood}`;
  }

  async #createNotFiniteError({ step }: Pending, loss: number, norm: number): Promise<never> {
    await this.#options.optimizer.recover();
    const what = Number.isFinite(loss) ? `the gradient norm is ${norm}` : `the loss is ${loss}`;
    return this.#fail(`step ${step + 1}: ${what}; the update was skipped`, step);
  }

  /** Ends the run because the weights after `step` steps give a loss or a gradient that is not finite. */
  async #fail(what: string, step: number): Promise<never> {
    await this.#mark(false);
    const instead =
      step === 0
        ? "nothing was trained before: the model's weights or the data contain or cause such values"
        : "try a lower learning rate or a longer warm-up";
    throw new LowrankError("ERR_NOT_FINITE", `${what}${this.#findFallback()}; ${instead}`);
  }

  async #evaluate(step: number): Promise<{ save: boolean; end: boolean } | undefined> {
    const { evaluate, context, signal, judge, sample } = this.#options;
    const { stopping } = context;
    if (evaluate === undefined) {
      this.#evaluatedAt = step;
      await sample?.(step);
      return undefined;
    }
    let evaluation: Evaluation;
    try {
      const ending = signal === undefined ? stopping : AbortSignal.any([signal, stopping]);
      const work = (): Promise<Evaluation> => evaluate(ending, () => this.#pause());
      evaluation = await (this.#timer === undefined ? work() : this.#timer.timeEvaluation(work));
    } catch (error) {
      throwIfAborted(signal);
      // A stop waits for the current step, but not for an evaluation.
      if (stopping.aborted && error === readAbortReason(stopping)) return undefined;
      // A failed evaluation does not discard the training so far.
      if (step > this.#options.first && error instanceof LowrankError && error.code === "ERR_NOT_FINITE") {
        context.emit({ type: "warning", message: `step ${step}: ${error.message}` });
        this.#evaluatedAt = step;
        return undefined;
      }
      throw error;
    }
    throwIfAborted(signal);
    this.#evalLoss = evaluation.loss;
    this.#evaluated = { step, loss: evaluation.loss };
    this.#evaluatedAt = step;
    if (step === 0) this.#divergence.addUntrained(evaluation.loss);
    this.#pace.pause();
    context.emit({ type: "eval", step, ...evaluation });
    const verdict = judge?.(step, evaluation);
    await sample?.(step);
    return verdict;
  }

  async #save(step: number): Promise<void> {
    const { save, context } = this.#options;
    if (save === undefined || this.#lastCheckpoint?.step === step) return;
    const work = (): Promise<string> => save(step);
    const path = await (this.#timer === undefined ? work() : this.#timer.timeSave(work));
    this.#lastCheckpoint = { step, path, checked: false };
    this.#pace.pause();
    context.emit({ type: "checkpoint", step, path });
    if (this.#divergence.diverged) await this.#mark(false);
  }
}

/** Returns the devices that train, the optimizer's first. */
function listDevices({ device, replicas = [] }: LoopOptions): Exclude<Device, "auto">[] {
  return [device, ...replicas.map((replica) => replica.device)];
}

/** Returns the bytes that this process holds on a device, including memory-mapped weights. */
function readHeldBytes(device: Device): number {
  const { reserved, mapped } = memory(device);
  return reserved + mapped;
}
