/** What every optimizer is: parameters in groups, each with its options, and a state that lives on the device. */
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { Tensor } from "../tensor.js";

/** The options of a group, as the binding takes them. */
export interface RuleOptions {
  lr: number;
  weightDecay: number;
}

/** Parameters with options of their own; what is left out is the optimizer's. */
export type ParameterGroup<Options> = { params: Iterable<Tensor> } & Partial<Options>;

/** Parameters, or groups of them. */
export type Parameters<Options> = Iterable<Tensor> | Iterable<ParameterGroup<Options>>;

/** A group as the optimizer holds it: `lr` and the others may be changed between steps. */
export type HeldGroup<Options> = { readonly params: readonly Tensor[] } & Options;

/** The state of one parameter, as PyTorch names its parts; the tensors are the optimizer's own. */
export type ParameterState = { step: number } & Record<string, Tensor | number>;

export interface OptimizerState<Options> {
  /** By the parameter's place; parameters that were never updated are left out. */
  state: Record<number, ParameterState>;
  paramGroups: (Options & { params: number[] })[];
}

/** Frees the state of optimizers that nobody disposed. */
const net = new FinalizationRegistry<number>((id) => session().disposeOptimizer(id));

/**
 * Parameters move into one arena when an optimizer is made, so that a step is one launch a group. Steps whose
 * gradients are not all finite change nothing, and neither do later ones, until `recover()`.
 */
export abstract class Optimizer<Options extends RuleOptions = RuleOptions> {
  readonly groups: HeldGroup<Options>[];
  readonly #id: number;
  readonly #stateNames: readonly string[];
  #disposed = false;

  /** `defaults` holds every option; a group's own go before them. */
  protected constructor(
    rule: "adamw" | "sgd",
    stateNames: readonly string[],
    params: Parameters<Options>,
    defaults: Options,
  ) {
    this.#stateNames = stateNames;
    this.groups = grouped(params).map((group) => {
      const own = Object.fromEntries(Object.entries(group).filter(([, value]) => value !== undefined));
      return { ...defaults, ...own, params: [...group.params] };
    });
    const ids = this.groups.map(({ params }) => params.map((tensor) => tensor.id));
    this.#id = session().optimizer(rule, ids, this.#options());
    net.register(this, this.#id, this);
  }

  /** Updates every parameter that has a gradient. */
  step(): void {
    this.stepClipped(undefined).dispose();
  }

  /**
   * As `step`, with gradients scaled down together to a norm of at most `max` as they are applied; they are left as
   * they are. Returns the norm that they had.
   */
  stepClipped(max: number | undefined): Tensor {
    return new Tensor(session().optimizerStep(this.#alive(), this.#options(), max));
  }

  /** Takes the gradients away. */
  zeroGrad(): void {
    session().optimizerZeroGrad(this.#alive());
  }

  /** For a checkpoint: the tensors in it are the optimizer's own, which later steps change. */
  stateDict(): OptimizerState<Options> {
    const state: Record<number, ParameterState> = {};
    for (const [i, { step, values }] of session().optimizerState(this.#alive()).entries()) {
      if (values.length === 0) continue;
      const tensors = values.map((id, k) => [this.#stateNames[k] as string, new Tensor(id)] as const);
      state[i] = { step, ...Object.fromEntries(tensors) };
    }
    let place = 0;
    const paramGroups = this.groups.map((group) => ({ ...group, params: group.params.map(() => place++) }));
    return { state, paramGroups };
  }

  /**
   * Takes over a state that `stateDict()` gave. Throws `ERR_SHAPE_MISMATCH` when it is of other parameters; nothing
   * is changed then.
   */
  loadStateDict({ state, paramGroups }: OptimizerState<Options>): void {
    const sizes = (groups: readonly { params: readonly unknown[] }[]): string =>
      groups.map(({ params }) => params.length).join(", ");
    if (sizes(paramGroups) !== sizes(this.groups)) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `loadStateDict: the state has groups of ${sizes(paramGroups)} parameters, the optimizer of ${sizes(this.groups)}`,
      );
    }
    const count = this.groups.reduce((n, { params }) => n + params.length, 0);
    const states = Array.from({ length: count }, (_, i) => {
      const own = state[i];
      if (own === undefined) return { step: 0, values: [] };
      return { step: own.step, values: this.#stateNames.map((name) => tensorOf(own, name, i).id) };
    });
    session().optimizerLoadState(this.#alive(), states);
    for (const [i, group] of this.groups.entries()) {
      const { params: _, ...options } = paramGroups[i] as Options & { params: number[] };
      Object.assign(group, options);
    }
  }

  /**
   * Lets steps update again after gradients that were not finite. Returns how many steps that left undone; they no
   * longer count.
   */
  async recover(): Promise<number> {
    const undone = new Tensor(session().optimizerUndone(this.#alive()));
    try {
      const steps = await undone.item();
      if (steps > 0) session().optimizerClearLatch(this.#alive(), steps);
      return steps;
    } finally {
      undone.dispose();
    }
  }

  /** Frees the state. The parameters stay as they are. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    net.unregister(this);
    session().disposeOptimizer(this.#id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #alive(): number {
    if (this.#disposed) throw new LowrankError("ERR_DISPOSED", "an optimizer is used after dispose()");
    return this.#id;
  }

  #options(): (Options & { params?: undefined })[] {
    return this.groups.map((group) => ({ ...group, params: undefined }) as Options & { params?: undefined });
  }
}

function grouped<Options>(params: Parameters<Options>): ParameterGroup<Options>[] {
  const all = [...(params as Iterable<Tensor | ParameterGroup<Options>>)];
  const tensors = all.filter((one) => one instanceof Tensor);
  if (tensors.length === 0) return all as ParameterGroup<Options>[];
  if (tensors.length < all.length) {
    throw new LowrankError(
      "ERR_OPTION",
      "an optimizer takes parameters or groups of them, not both in one list",
    );
  }
  return [{ params: tensors } as unknown as ParameterGroup<Options>];
}

function tensorOf(state: ParameterState, name: string, place: number): Tensor {
  const value = state[name];
  if (value instanceof Tensor) return value;
  throw new LowrankError(
    "ERR_UNMATCHED_KEY",
    `loadStateDict: the state of parameter ${place} has no ${name}`,
  );
}
