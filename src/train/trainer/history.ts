/** Keeps the figures of a `Trainer`'s steps and evaluations for use after the run. */
import type { RunContext } from "../run.js";
import type { TrainerEvent, TrainResult } from "./events.js";

/** The figures of one optimizer step. */
export interface StepRecord {
  /** Completed optimizer steps. */
  step: number;
  /** The mean loss of the step. */
  loss: number;
  /** The learning rate of the step. */
  learningRate: number;
  /** The global norm of the gradients before clipping. */
  gradNorm: number;
  /** The metrics that the loss function returned. */
  metrics?: Readonly<Record<string, number>> | undefined;
}

/** The figures of one evaluation. */
export interface EvaluationRecord {
  /** Completed optimizer steps. */
  step: number;
  /** The mean loss over the evaluation data. */
  loss: number;
  /** The metrics that the loss function returned. */
  metrics?: Readonly<Record<string, number>> | undefined;
}

/** The figures of a run, oldest first. */
export interface TrainerHistory {
  /** The steps. */
  steps: readonly StepRecord[];
  /** The evaluations. */
  evaluations: readonly EvaluationRecord[];
}

/** The maximum length of a list, which bounds the memory of a long run. */
const MOST = 10_000;

/** A list that drops every second entry when it is full, and then records only every second entry (fourth, eighth, …). */
class Thinned<T> {
  entries: T[] = [];
  #every = 1;
  #seenSteps = 0;

  add(entry: T): void {
    if (this.#seenSteps++ % this.#every !== 0) return;
    this.entries.push(entry);
    if (this.entries.length <= MOST) return;
    this.entries = this.entries.filter((_, i) => i % 2 === 0);
    this.#every *= 2;
  }
}

/** Collects figures from events. */
export class History {
  readonly #steps = new Thinned<StepRecord>();
  readonly #evaluations = new Thinned<EvaluationRecord>();

  /** A copy of the lists. */
  get entries(): TrainerHistory {
    return { steps: [...this.#steps.entries], evaluations: [...this.#evaluations.entries] };
  }

  /** Adds an event; events without figures are ignored. */
  add(event: TrainerEvent): void {
    if (event.type === "step") {
      const { step, loss, learningRate, gradNorm, metrics } = event;
      this.#steps.add({ step, loss, learningRate, gradNorm, ...(metrics && { metrics }) });
    } else if (event.type === "eval") {
      const { step, loss, metrics } = event;
      this.#evaluations.add({ step, loss, ...(metrics && { metrics }) });
    }
  }
}

/** The context of a run whose events are recorded. */
export interface Recording {
  context: RunContext<TrainerEvent>;
  /** Returns the last metrics of steps and of evaluations. */
  lastMetrics(): Pick<TrainResult, "metrics" | "evalMetrics">;
}

/** Records in `history` each event that `context` emits. */
export function recordHistory(context: RunContext<TrainerEvent>, history: History): Recording {
  let last: Pick<TrainResult, "metrics" | "evalMetrics"> = {};
  const emit = (event: TrainerEvent): void => {
    history.add(event);
    if (event.type === "step" && event.metrics !== undefined) last = { ...last, metrics: event.metrics };
    if (event.type === "eval" && event.metrics !== undefined) last = { ...last, evalMetrics: event.metrics };
    context.emit(event);
  };
  return { context: { ...context, emit }, lastMetrics: () => last };
}
