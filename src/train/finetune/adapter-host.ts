/** How a run uses its model: alone, or together with the adapters of other runs. */
import type { Batch, BatchPlan } from "../../data/batches.js";
import { snapshotActive } from "../../lora/adapter/active.js";
import { deleteAdapter, type InjectReport } from "../../lora/index.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { Optimizer } from "../../optim/index.js";
import type { StepWork } from "../loop.js";
import type { Measured } from "../objective.js";
import { createRunOptimizer, trainOwn } from "../run-parts.js";
import type { Settings } from "../settings.js";
import { yieldToEventLoop } from "../yield-to-event-loop.js";

export interface AdapterHost {
  /** The adapter's name in the model. */
  readonly name: string;
  /** Adds the run's adapter by `adapt`, and returns its report. */
  adapt(adapt: () => Promise<InjectReport>): Promise<InjectReport>;
  /** Makes the adapter the trained one, and returns the optimizer of its parameters. */
  createOptimizer(): Promise<Optimizer>;
  /** Returns the work of a step; by default the run records it itself. */
  planStep?(plan: BatchPlan, step: number): StepWork;
  /** Measures a batch in evaluation mode; by default the run does so itself. */
  measure?: ((batch: Batch) => Promise<Measured>) | undefined;
  /** Called after the adapter was replaced by a saved one. */
  handleReload(): void;
  /** Deletes the adapter of a run that failed or that trained nothing. */
  abandon(): void;
}

/** A model that only this run trains. */
export class OwnModel implements AdapterHost {
  readonly name: string;
  readonly #model: PretrainedModel;
  readonly #settings: Settings;
  /** Restores the adapters that were active before the run. */
  #restore: () => void = () => {};
  #added = false;

  constructor(model: PretrainedModel, settings: Settings) {
    this.#model = model;
    this.#settings = settings;
    this.name = settings.lora.name ?? "default";
  }

  async adapt(adapt: () => Promise<InjectReport>): Promise<InjectReport> {
    this.#restore = snapshotActive(this.#model);
    const report = await adapt();
    this.#added = true;
    return report;
  }

  async createOptimizer(): Promise<Optimizer> {
    const model = this.#model;
    trainOwn(model, this.#settings);
    await yieldToEventLoop();
    model.train();
    model.gradientCheckpointing = this.#settings.gradientCheckpointing;
    return createRunOptimizer(model, this.#settings);
  }

  handleReload(): void {
    trainOwn(this.#model, this.#settings);
  }

  abandon(): void {
    // A run may fail because another adapter has its name, which stays.
    if (!this.#added) return;
    deleteAdapter(this.#model, this.name);
    this.#restore();
  }
}
