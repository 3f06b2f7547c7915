/** Runs one trial of a sweep, as `finetune` runs alone or next to other trials of its group. */
import { LowrankError } from "../../errors.js";
import { listAdapters } from "../../lora/adapter/registry.js";
import { deleteAdapter } from "../../lora/index.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import { runWithRandom, setRandomState } from "../../tensor/random.js";
import { withMatmulPrecision } from "../../tensor/scope.js";
import type { EndEvent, FinetuneResult, TrainEvent } from "../events.js";
import { AdapterRun, type Subject } from "../finetune/adapter-run.js";
import { OwnModel } from "../finetune/adapter-host.js";
import { recordEnd } from "../finetune/finetuning.js";
import type { Objective } from "../objective.js";
import { OutputFolder } from "../output/folder.js";
import { createLine, readOrigin } from "../output/lineage.js";
import { Pausing } from "../pausing.js";
import { checkOwnEvents, RunRecorder } from "../recorder.js";
import { prepareResume, type Resumed } from "../resume.js";
import type { RunContext } from "../run.js";
import { Watched } from "../watched.js";
import { AdapterObjective } from "./adapter-objective.js";
import type { SweepBase } from "./base.js";
import type { EventOfTrial, SweepEvent, TrialSummary } from "./events.js";
import type { Halving, HalvingGroup } from "./halving.js";
import type { Trial } from "./options.js";
import type { SweepRecord } from "./record.js";
import { SharedModel } from "./shared-model.js";
import type { SideBySide } from "./side-by-side.js";

/** The number of last steps whose mean loss ranks trials without held-out rows. */
const RECENT = 10;

/** The parts that the trials of a group share. */
export interface GroupParts {
  base: SweepBase;
  model: PretrainedModel;
  objective: Objective;
  /** The number of random draws that loading the model took, after which a trial's draws begin. */
  draws: number;
  /** Undefined for a single trial, which has the model for itself. */
  others: SideBySide | undefined;
  halving: { all: Halving; group: HalvingGroup } | undefined;
  context: RunContext<SweepEvent>;
  record: SweepRecord;
}

/** Writes a trial's events, and its evaluations into the record of the sweep, before each checkpoint. */
class TrialRecorder extends RunRecorder {
  readonly #update: () => Promise<void>;

  constructor(warn: (message: string) => void, update: () => Promise<void>) {
    super(warn);
    this.#update = update;
  }

  override async flush(): Promise<void> {
    await super.flush();
    await this.#update();
  }
}

export class TrialRun {
  readonly #trial: Trial;
  readonly #parts: GroupParts;
  readonly #summary: { -readonly [Name in keyof TrialSummary]: TrialSummary[Name] };
  readonly #halt = new AbortController();
  readonly #recent: number[] = [];
  /** Losses since the last comparison. */
  #recentLosses: number[] = [];
  /** The step that the trial was resumed from. */
  #firstStep = 0;

  constructor(trial: Trial, before: TrialSummary, parts: GroupParts) {
    this.#trial = trial;
    this.#parts = parts;
    const { evaluations, comparisons } = before;
    this.#summary = { ...before, evaluations: { ...evaluations }, comparisons: { ...comparisons } };
  }

  /**
   * Trains the trial and returns its summary; a trial whose loss is not finite is summarised, too. Throws the other errors
   * of `finetune`.
   */
  async run(): Promise<TrialSummary> {
    const { name } = this.#trial;
    const { others, halving, model } = this.#parts;
    const began = performance.now();
    try {
      const end = await this.#train(began);
      Object.assign(this.#summary, this.#describeEnd(end));
    } catch (error) {
      if (!(error instanceof LowrankError && error.code === "ERR_NOT_FINITE")) throw error;
      Object.assign(this.#summary, { state: "failed", error: error.message });
    } finally {
      this.#summary.seconds += (performance.now() - began) / 1000;
      others?.leave(name);
      halving?.group.leave(name);
      const hostName = this.#hostName;
      if (listAdapters(model).has(hostName)) deleteAdapter(model, hostName);
    }
    return this.#summary;
  }

  get #hostName(): string {
    const { name, settings } = this.#trial;
    return this.#parts.others === undefined ? (settings.lora.name ?? "default") : name;
  }

  #describeEnd({ adapter, steps, loss, evalLoss, stopped, best }: EndEvent): Partial<TrialSummary> {
    const halted = stopped && this.#halt.signal.aborted;
    const state = halted ? "halted" : !stopped ? "done" : adapter === "" ? "waiting" : "stopped";
    return {
      state,
      steps,
      loss,
      recentLoss: this.#recent.length === 0 ? loss : computeMean(this.#recent),
      evalLoss: best?.loss ?? evalLoss,
    };
  }

  async #train(began: number): Promise<EndEvent> {
    const { name, settings } = this.#trial;
    const { base, context, record } = this.#parts;
    const emit = (event: TrainEvent): void => {
      recorder.record(event);
      this.#note(event);
      context.emit({ ...event, trial: name } as EventOfTrial);
    };
    const recorder = new TrialRecorder(
      (message) => context.emit({ type: "warning", message, trial: name }),
      () => record.update({ ...this.#summary }),
    );
    const watched = new Watched();
    const output = await OutputFolder.claim(settings.output);
    try {
      const adapter = settings.lora.name ?? "default";
      const resumed = await this.#findResumed();
      const overwrite = resumed === undefined && record.replaces(name);
      if (resumed === undefined) await output.checkFree(overwrite, adapter);
      else await output.checkOwn(undefined, adapter);
      await checkOwnEvents(output.path, settings.log);
      if (this.#parts.objective.labels !== undefined) await output.checkLabels(adapter);
      const stopping = AbortSignal.any([context.stopping, this.#halt.signal]);
      const pausing = this.#parts.others === undefined ? context.pausing : new Pausing();
      const recorded = { emit, stopping, pausing, recorder, watched };
      const subject = this.#createSubject(output, resumed, overwrite);
      await record.begin(name, subject.line);
      const run = new AdapterRun(subject, recorded);
      const work = (): Promise<FinetuneResult> =>
        runWithRandom(settings.seed, () => {
          setRandomState({ seed: settings.seed, draws: this.#parts.draws });
          return withMatmulPrecision(base.precision, () => run.run(resumed));
        });
      const end = await recordEnd(work, { recorder, watched }, settings, began);
      context.emit({ ...end, trial: name });
      return end;
    } finally {
      await output.release();
    }
  }

  /**
   * Finds the checkpoint of a trial that was stopped or killed. Throws the errors of `prepareResume`, except that there is
   * no checkpoint.
   */
  async #findResumed(): Promise<Resumed | undefined> {
    const { name, settings } = this.#trial;
    const origin = this.#parts.record.findOrigin(name);
    if (origin === undefined) return undefined;
    const resumed = await prepareResume({ home: settings.output, name: undefined }, {}).catch(
      (error: unknown) => {
        if (!(error instanceof LowrankError)) throw error;
        if (error.code === "ERR_FILE_NOT_FOUND") return undefined;
        const message = `${error.message}. The sweep restarts ${name} if ${settings.output} is removed`;
        throw new LowrankError(error.code, message, { cause: error });
      },
    );
    // A trial that was killed before its first checkpoint may have the run in its folder that it replaces.
    if (resumed === undefined || readOrigin(resumed.line) !== origin) return undefined;
    this.#firstStep = resumed.checkpoint.step;
    return resumed;
  }

  #createSubject(output: OutputFolder, resumed: Resumed | undefined, overwrite: boolean): Subject {
    const { name, settings } = this.#trial;
    const { base, model, objective, others } = this.#parts;
    const device = model.device;
    const options = {
      ...settings,
      overwrite,
      device,
      devices: [device],
      matmulPrecision: base.precision,
      revision: base.settings.revision,
    };
    const host =
      others === undefined ? new OwnModel(model, options) : new SharedModel(model, options, name, others);
    return {
      model,
      others: [],
      settings: options,
      prepared: base.prepare(
        others === undefined ? objective : new AdapterObjective(objective, name),
        options,
      ),
      output,
      line: resumed?.line ?? createLine(),
      identities: base.identities,
      memory: undefined,
      host,
      gate: (step) => this.#passes(step),
    };
  }

  /** Whether the trial continues after `step` steps, compared with the others. */
  async #passes(step: number): Promise<boolean> {
    const { halving, others } = this.#parts;
    const { name } = this.#trial;
    const summary = this.#summary;
    if (halving === undefined || !halving.all.isDue(step)) return true;
    const known = (summary.comparisons as Record<number, number>)[step];
    // A resumed trial may have reached the comparison before it was stopped.
    const reached = step === this.#firstStep ? known : undefined;
    const loss =
      reached ??
      summary.evaluations[step] ??
      (this.#recentLosses.length > 0 ? computeMean(this.#recentLosses) : Infinity);
    this.#recentLosses = [];
    (summary.comparisons as Record<number, number>)[step] = loss;
    if (reached === undefined) await this.#parts.record.update({ ...summary });
    const wait = (): Promise<boolean> => halving.group.arrive(name, step, loss);
    const continues = await (others === undefined ? wait() : others.runApart(name, wait));
    if (!continues) this.#halt.abort();
    return continues;
  }

  /** Collects the figures of an event. */
  #note(event: TrainEvent): void {
    const summary = this.#summary;
    if (event.type === "eval") (summary.evaluations as Record<number, number>)[event.step] = event.loss;
    if (event.type !== "step") return;
    Object.assign(summary, { steps: event.step, loss: event.loss });
    this.#recent.push(event.loss);
    if (this.#recent.length > RECENT) this.#recent.shift();
    this.#recentLosses.push(event.loss);
    summary.recentLoss = computeMean(this.#recent);
  }
}

function computeMean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
