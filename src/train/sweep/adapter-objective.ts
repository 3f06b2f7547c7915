/** The objective of one of several adapters of a model. */
import type { Batch } from "../../data/batches.js";
import type { Data } from "../../data/read.js";
import type { OnProgress } from "../../data/examples.js";
import type { ExampleStore } from "../../data/store.js";
import type { AdapterPerRow } from "../../lora/layers/rows.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Measured, Objective } from "../objective.js";

/** Measures batches with the adapter of one name, active or not. */
export class AdapterObjective implements Objective {
  readonly tokenisation;
  readonly packing;
  readonly labels;
  readonly modulesToSave;

  constructor(
    private readonly objective: Objective,
    private readonly name: string,
  ) {
    this.tokenisation = objective.tokenisation;
    this.packing = objective.packing;
    this.labels = objective.labels;
    this.modulesToSave = objective.modulesToSave;
  }

  createExamples(
    data: Data,
    signal: AbortSignal | undefined,
    onProgress?: OnProgress,
  ): Promise<ExampleStore> {
    return this.objective.createExamples(data, signal, onProgress);
  }

  computeLossSum(batch: Batch, scale: number): Tensor {
    return this.measureRows(batch, this.#listNames(batch), "training").loss.sum().mul(scale);
  }

  measure(batch: Batch): Measured {
    const { loss, ...rest } = this.measureRows(batch, this.#listNames(batch), "evaluation");
    return { loss: loss.sum(), ...rest };
  }

  measureRows(batch: Batch, names: AdapterPerRow, purpose: "training" | "evaluation"): Measured {
    return this.objective.measureRows(batch, names, purpose);
  }

  #listNames({ shape: [rows] }: Batch): string[] {
    return Array.from({ length: rows }, () => this.name);
  }
}
