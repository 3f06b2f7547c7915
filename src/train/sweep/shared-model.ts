/** A model that several runs train at once, each with its own adapter. */
import type { Batch, BatchPlan } from "../../data/batches.js";
import { setTrainable } from "../../lora/adapter/active.js";
import { listAdapters } from "../../lora/adapter/registry.js";
import { deleteAdapter, setAdapter, type InjectReport } from "../../lora/index.js";
import { listParts } from "../../lora/layers/adapter.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { Optimizer } from "../../optim/index.js";
import type { AdapterHost } from "../finetune/adapter-host.js";
import type { StepWork } from "../loop.js";
import type { Measured } from "../objective.js";
import { createRunOptimizer } from "../run-parts.js";
import type { Settings } from "../settings.js";
import type { SideBySide } from "./side-by-side.js";

export class SharedModel implements AdapterHost {
  readonly name: string;
  readonly #model: PretrainedModel;
  readonly #settings: Settings;
  readonly #sideBySide: SideBySide;
  #endTurn: () => void = () => {};

  /** `name` is the adapter's name in the model, which no other run uses. */
  constructor(model: PretrainedModel, settings: Settings, name: string, others: SideBySide) {
    this.#model = model;
    this.#settings = settings;
    this.name = name;
    this.#sideBySide = others;
  }

  /** Begins a turn that `createOptimizer` ends, so that one run after another allocates its tensors, as in the estimate. */
  async adapt(adapt: () => Promise<InjectReport>): Promise<InjectReport> {
    this.#endTurn = await this.#sideBySide.takeTurn();
    try {
      const report = await adapt();
      return countOwn(this.#model, this.name, report);
    } catch (error) {
      this.#endTurn();
      throw error;
    }
  }

  createOptimizer(): Promise<Optimizer> {
    try {
      return Promise.resolve(createAdapterOptimizer(this.#model, this.name, this.#settings));
    } finally {
      this.#endTurn();
    }
  }

  planStep(plan: BatchPlan, step: number): StepWork {
    const { batches, tokens, trained } = plan.listBatchesAt(step);
    const recorded = batches.map((batch) => () => this.#sideBySide.record(this.name, batch, 1 / trained));
    return { losses: [], recorded, tokens, trained };
  }

  readonly measure = (batch: Batch): Promise<Measured> => this.#sideBySide.measure(this.name, batch);

  handleReload(): void {
    setAdapter(this.#model, []);
  }

  abandon(): void {
    if (listAdapters(this.#model).has(this.name)) deleteAdapter(this.#model, this.name);
  }
}

/**
 * Returns the optimizer of one adapter's parameters, in the order that they have in a model with this adapter alone. All
 * adapters are trainable afterwards, and none is active.
 */
export function createAdapterOptimizer(model: PretrainedModel, name: string, settings: Settings): Optimizer {
  setAdapter(model, name, { trainable: true });
  const optimizer = createRunOptimizer(model, settings);
  setAdapter(model, []);
  for (const other of listAdapters(model).keys()) setTrainable(model, other, true);
  return optimizer;
}

/** Returns the report of one adapter without the parameters of the others. */
function countOwn(model: PretrainedModel, name: string, report: InjectReport): InjectReport {
  let others = 0;
  for (const adapter of listAdapters(model).values()) {
    if (adapter.name === name) continue;
    for (const layer of adapter.layers.values())
      for (const [, tensor] of listParts(layer.findAdapter(adapter.name))) others += tensor.size;
  }
  return { ...report, trainable: report.trainable - others, total: report.total - others };
}
