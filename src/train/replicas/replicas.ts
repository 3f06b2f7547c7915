/** The model on further devices, which compute the losses of their rows. */
import type { BatchPlan, DividedRows } from "../../data/batches.js";
import type { RowReader } from "../../data/store.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { Optimizer } from "../../optim/index.js";
import { Replica } from "../../optim/replica.js";
import { runWithRandom } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { DeviceReplica, StepWork } from "../loop.js";
import type { Objective } from "../objective.js";
import { createObjective } from "../prepare.js";
import { groupParameters, trainOwn } from "../run-parts.js";
import type { Settings } from "../settings.js";
import { dealRows, findFirstPart, listShares } from "./shares.js";

/** Returns a seed that depends on all of the numbers (FNV-1a over their 32-bit halves). */
function mixSeed(...numbers: number[]): number {
  const halves = numbers.flatMap((n) => [n % 2 ** 32, Math.floor(n / 2 ** 32)]);
  return halves.reduce((hash, half) => Math.imul(hash ^ half, 0x01000193), 0x811c9dc5) >>> 0;
}

/** The model and the objective of a run, and the same model on further devices. */
export interface Replicated {
  settings: Settings;
  objective: Objective;
  /** One for each further device. */
  models: readonly PretrainedModel[];
  optimizer: Optimizer;
  /** Gives a model the run's adapter. */
  adapt: (model: PretrainedModel) => Promise<unknown>;
}

/** The rows of a step, and a reader of this rank's. */
interface FetchedStep {
  step: number;
  rows: DividedRows;
  read: Promise<RowReader>;
}

/** The further devices of a run. Without any, all rows are the first device's. */
export class Replicas {
  /** The copies of the trained parameters. */
  readonly copies: readonly DeviceReplica[];
  readonly #objectives: readonly Objective[];
  readonly #settings: Settings;
  /** The next step, whose rows are on their way. */
  #fetched: FetchedStep | undefined;

  private constructor(copies: DeviceReplica[], objectives: Objective[], settings: Settings) {
    this.copies = copies;
    this.#objectives = objectives;
    this.#settings = settings;
  }

  /** Gives the models the run's adapter with the values of the optimizer's parameters. Throws as `adapt`. */
  static async create(replicated: Replicated): Promise<Replicas> {
    const { settings, objective, models, optimizer, adapt } = replicated;
    const { labels } = objective;
    const copies: DeviceReplica[] = [];
    const objectives = [objective];
    try {
      for (const model of models) {
        // A separate generator, so that the run draws the same values as on one device.
        await runWithRandom(settings.seed, () => adapt(model));
        trainOwn(model, settings);
        model.train();
        model.gradientCheckpointing = settings.gradientCheckpointing;
        objectives.push(createObjective(model, { ...settings, labels }));
        const parameters = new Replica(groupParameters(model, settings).map(({ params }) => [...params]));
        copies.push({ device: model.device, parameters });
        parameters.copyValuesOf(optimizer);
      }
      return new Replicas(copies, objectives, settings);
    } catch (error) {
      for (const { parameters } of copies) parameters.dispose();
      throw error;
    }
  }

  /**
   * Returns this rank's work of a step. Its losses take turns among the devices, so that all have work early; each is the
   * sum of a micro-batch, divided by the number of tokens or rows that all ranks train on in the step. Where other ranks
   * hold rows of the step, they are fetched; the rows of the next step follow while this one is computed.
   */
  async planStep(plan: BatchPlan, step: number): Promise<StepWork> {
    const first = findFirstPart(this.#settings);
    const { rows, read: reading } = this.#fetched?.step === step ? this.#fetched : this.#fetch(plan, step);
    const read = await reading;
    const next = step + 1 < plan.steps && this.#settings.ranks !== undefined;
    this.#fetched = next ? this.#fetch(plan, step + 1) : undefined;
    const { tokens, trained } = rows;
    const divided = this.#objectives.map((_, device) =>
      (rows.batches[first + device] ?? []).map((batch) => plan.build(batch, read)),
    );
    const turns = Math.max(...divided.map(({ length }) => length));
    const losses = Array.from({ length: turns }, (_, turn) =>
      divided.flatMap((batches, device) => {
        const batch = batches[turn];
        const objective = this.#objectives[device] as Objective;
        if (batch === undefined) return [];
        return [this.#draw(step, turn, first + device, () => objective.computeLossSum(batch, 1 / trained))];
      }),
    );
    const ownTokens = divided.flat().reduce((sum, batch) => sum + batch.tokens, 0);
    return { losses: losses.flat(), tokens, ownTokens, trained };
  }

  /** Divides the rows of a step, and fetches this rank's from the ranks that hold them. */
  #fetch(plan: BatchPlan, step: number): FetchedStep {
    const { devices, ranks } = this.#settings;
    const shares = listShares(this.#settings);
    const rows = plan.divideRows(step, (count) => dealRows(count, shares));
    const wanted = Array.from({ length: ranks?.size ?? 1 }, (_, rank) =>
      rows.batches.slice(rank * devices.length, (rank + 1) * devices.length).flat(3),
    );
    const read = plan.gather(wanted);
    // Awaited when the step begins; until then a rejection must not count as unhandled.
    read.catch(() => {});
    return { step, rows, read };
  }

  /**
   * With ranks, gives each micro-batch a separate generator, so that ranks draw other masks, and the run's generator has
   * the same state on all of them.
   */
  #draw(step: number, turn: number, part: number, loss: () => Tensor): () => Tensor {
    const { ranks, seed } = this.#settings;
    if (ranks === undefined) return loss;
    return () => runWithRandom(mixSeed(seed, step, turn, part), loss);
  }

  /** Frees the copies' gradients. The models belong to the caller. */
  dispose(): void {
    for (const { parameters } of this.copies) parameters.dispose();
  }
}
