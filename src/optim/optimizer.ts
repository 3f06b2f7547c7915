/** What every optimizer is: parameters in groups, each with its options, and a state that lives on the device. */
import { flag, listOf, numberThat, numeric, options, refuse, text } from "../argument.js";
import { LowrankError } from "../errors.js";
import { session } from "../native.js";
import { beforeReads, readAlong, type Begun } from "../reads.js";
import { elementBytes } from "../safetensors.js";
import { scope } from "../scope.js";
import { isTensor, type Tensor, wrapped } from "../tensor.js";
import { readState, writeState } from "./state-file.js";

/** The options that every optimizer has. */
export interface RuleOptions {
  /** The learning rate. */
  lr: number;
  /** How strongly parameters are drawn to 0; each optimizer says how. */
  weightDecay: number;
}

/** Parameters with options of their own; what is left out is the optimizer's. */
export type ParameterGroup<Options> = {
  /** The tensors to train. */
  params: Iterable<Tensor>;
} & Partial<Options>;

/** Parameters, or groups of them. */
export type Parameters<Options> = Iterable<Tensor> | Iterable<ParameterGroup<Options>>;

/** A group as the optimizer holds it: `lr` and the others may be changed between steps. */
export type HeldGroup<Options> = {
  /** The tensors that are trained. */
  readonly params: readonly Tensor[];
} & Options;

/** The state of one parameter, as PyTorch names its parts; the tensors are the optimizer's own. */
export type ParameterState = {
  /** How often the parameter was updated. */
  step: number;
} & Record<string, Tensor | number>;

/** What `stateDict()` gives. */
export interface OptimizerState<Options> {
  /** By the parameter's place; parameters that were never updated are left out. */
  state: Record<number, ParameterState>;
  /** The groups' options, and the places of their parameters, counted through all groups. */
  paramGroups: (Options & {
    /** Places of the group's parameters. */
    params: number[];
  })[];
}

/** The states of a parameter of a shape, each with its own shape, by PyTorch's names. */
export type StateShapes = (shape: readonly number[]) => Readonly<Record<string, readonly number[]>>;

/** States of one value for each element. */
function elementwise(names: readonly string[]): StateShapes {
  return (shape) => Object.fromEntries(names.map((name) => [name, shape]));
}

/** Frees the state of optimizers that nobody disposed. */
const net = new FinalizationRegistry<number>((id) => session().disposeOptimizer(id));

/**
 * Parameters move into one arena when an optimizer is made, so that a step is one launch a group.
 *
 * A step whose gradients are not all finite (NaN, or an infinity) is left out: parameters and state stay as they are,
 * and it does not count, as PyTorch's `GradScaler` has it. Later steps work. The next value that is awaited (`item()`,
 * `data()`, `synchronize()`) tells of it by a process warning with the code `ERR_NOT_FINITE`; `skipped` counts.
 */
export abstract class Optimizer<Options extends RuleOptions = RuleOptions> {
  /** The parameters in groups, with the options of each, which may be changed between steps. */
  readonly groups: HeldGroup<Options>[];
  readonly #id: number;
  readonly #rule: string;
  readonly #states: StateShapes;
  #disposed = false;
  #skipped = 0;
  /** Takes off what reads the count of steps that were left out. */
  #unheard: (() => void) | undefined;
  /** A reading of that count under way. */
  #hearing: Promise<void> | undefined;

  /**
   * `states` are the names of states with one value for each element, or a function that returns the shapes of a
   * parameter's states. `defaults` holds every option; options of a group override them. `where` is the class, for
   * errors.
   */
  protected constructor(
    where: string,
    rule: "adafactor" | "adam" | "adamw" | "lion" | "sgd",
    states: readonly string[] | StateShapes,
    params: Parameters<Options>,
    defaults: Options,
  ) {
    text("Optimizer", "where", where);
    this.#rule = rule;
    this.#states = typeof states === "function" ? states : elementwise(states);
    this.groups = grouped(where, params).map((group, i) => {
      const { params: own, ...given } = group;
      const name = `${where}: group ${i}`;
      const chosen = options(
        name,
        given as unknown as Options,
        Object.keys(defaults) as (keyof Options & string)[],
      );
      const set = Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== undefined));
      return { ...checkedOptions(name, { ...defaults, ...set }), params: parametersOf(name, own) };
    });
    const ids = this.groups.map(({ params }) => params.map((tensor) => tensor.id));
    this.#id = session().optimizer(rule, ids, this.#options());
    net.register(this, this.#id, this);
  }

  /**
   * Updates every parameter that has a gradient.
   *
   * Throws `ERR_OPTION` for a group's option that is out of range, `ERR_DISPOSED`.
   */
  step(): void {
    this.stepClipped(undefined).dispose();
  }

  /**
   * As `step`, with gradients scaled down together to a norm of at most `max` as they are applied; they are left as
   * they are. Returns the norm that they had, a tensor of shape [].
   *
   * Throws as `step`, and `ERR_OPTION` for a norm below 0.
   */
  stepClipped(max: number | undefined): Tensor {
    const norm = this.update(max, false);
    // A meta device runs nothing, and has no values.
    if (!norm.device.startsWith("meta")) this.#unheard ??= beforeReads(() => this.#hear());
    return norm;
  }

  /**
   * @internal As `stepClipped`, of a loop that reads the norm itself and has the next step on its way by then: once a
   * norm is not finite all later steps are left out, too, until `recover()`.
   */
  stepLatched(max: number | undefined): Tensor {
    return this.update(max, true);
  }

  /** @internal Appends a step; `latches` as `stepLatched` has it. */
  protected update(max: number | undefined, latches: boolean): Tensor {
    if (max !== undefined) numberThat("stepClipped", "max", max, (n) => n >= 0, "a number from 0 on");
    return wrapped(session().optimizerStep(this.#alive(), this.#options(), max, latches));
  }

  /** @internal Bytes of its state once every parameter was updated; the engine keeps it in f32. */
  get stateBytes(): number {
    const sizes = this.#parameters.flatMap(({ shape }) => Object.values(this.#states(shape)));
    const values = sizes.reduce((sum, shape) => sum + shape.reduce((n, d) => n * d, 1), 0);
    return values * elementBytes("f32");
  }

  /** How many steps were left out since their gradients were not finite, as far as that has been told. */
  get skipped(): number {
    return this.#skipped;
  }

  /**
   * Begins to read how many steps were left out, which are then taken from the counts and told; one reading after the
   * other.
   */
  #hear(): Begun | undefined {
    this.#unheard?.();
    this.#unheard = undefined;
    if (this.#disposed) return undefined;
    if (this.#hearing !== undefined) {
      return this.#hearing.then(() => {
        this.#unheard ??= beforeReads(() => this.#hear());
        return readAlong();
      });
    }
    const of = session().optimizerLeftOut(this.#id);
    let done = (): void => {};
    this.#hearing = new Promise((resolve) => (done = resolve));
    const heard = (bytes: Uint8Array | undefined): void => {
      this.#hearing = undefined;
      done();
      if (bytes !== undefined) this.#count(new Float32Array(bytes.buffer, bytes.byteOffset, 1)[0] as number);
    };
    return { of, heard };
  }

  #count(steps: number): void {
    if (steps === 0 || this.#disposed) return;
    session().optimizerCountOut(this.#id, steps);
    this.#skipped += steps;
    const what = steps === 1 ? "a step was left out, since its" : `${steps} steps were left out, since their`;
    process.emitWarning(
      `${this.constructor.name}: ${what} gradients were not finite: neither parameters nor state changed`,
      { type: "LowrankWarning", code: "ERR_NOT_FINITE" },
    );
  }

  /** Sets the gradients of its parameters to null. Throws `ERR_DISPOSED`. */
  zeroGrad(): void {
    session().optimizerZeroGrad(this.#alive());
  }

  /**
   * For a checkpoint: the tensors in it are the optimizer's own, which later steps change. Steps that were left out
   * count until a value has been awaited.
   */
  stateDict(): OptimizerState<Options> {
    const state: Record<number, ParameterState> = {};
    const parameters = this.#parameters;
    for (const [i, { step, values }] of session().optimizerState(this.#alive()).entries()) {
      if (values.length === 0) continue;
      const names = this.#stateNames(parameters[i] as Tensor);
      const tensors = values.map((id, k) => [names[k] as string, wrapped(id)] as const);
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
  loadStateDict(given: OptimizerState<Options>): void {
    const { state, paramGroups } = checkedState(given);
    const sizes = (groups: readonly { params: readonly unknown[] }[]): string =>
      groups.map(({ params }) => params.length).join(", ");
    if (sizes(paramGroups) !== sizes(this.groups)) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `loadStateDict: the state has groups of ${sizes(paramGroups)} parameters, the optimizer of ${sizes(this.groups)}`,
      );
    }
    const states = this.#parameters.map((parameter, i) => {
      const own = state[i];
      if (own === undefined) return { step: 0, values: [] };
      const names = this.#stateNames(parameter);
      return { step: own.step, values: names.map((name) => tensorOf(own, name, i).id) };
    });
    session().optimizerLoadState(this.#alive(), states);
    for (const [i, group] of this.groups.entries()) {
      const { params: _, ...options } = paramGroups[i] as Options & { params: number[] };
      Object.assign(group, options);
    }
  }

  /**
   * Writes the state into a safetensors file, whole or not at all: what `stateDict()` holds, as it is when this is
   * called, without the steps that were left out. Throws `ERR_WRITE`.
   */
  async save(path: string): Promise<void> {
    text("optimizer.save", "path", path);
    // Steps that were left out count until they have been heard of.
    if (this.#unheard !== undefined) await readAlong();
    await writeState(path, this.#rule, this.stateDict());
  }

  /**
   * Takes over a state that `save` wrote: of an optimizer of this kind, over parameters of the same number, order and
   * shapes; options of groups, such as `lr`, with it. Nothing is changed when it fails. Throws `ERR_FILE_NOT_FOUND`,
   * `ERR_FILE_FORMAT`; `ERR_UNMATCHED_KEY` for another kind, `ERR_SHAPE_MISMATCH` for other parameters.
   */
  // A promise as `save` is: a device may be slow to take what a file holds.
  // eslint-disable-next-line @typescript-eslint/require-await
  async load(path: string): Promise<void> {
    text("optimizer.load", "path", path);
    this.#alive();
    const groups = this.groups.map(({ params, ...options }) => ({
      options,
      states: params.map(({ shape }) => this.#states(shape)),
    }));
    const read = readState(path, { kind: this.#rule, groups });
    const parameters = this.#parameters;
    try {
      scope(() => {
        const there = Object.entries(read.state).map(([place, { step, ...parts }]) => {
          const device = parameters[Number(place)]?.device ?? "cpu";
          const moved = Object.entries(parts).map(([name, one]) => [name, (one as Tensor).to(device)]);
          return [place, { step, ...Object.fromEntries(moved) }];
        });
        const state = Object.fromEntries(there) as OptimizerState<Options>["state"];
        this.loadStateDict({
          state,
          paramGroups: read.paramGroups as OptimizerState<Options>["paramGroups"],
        });
      });
    } finally {
      for (const parts of Object.values(read.state))
        for (const one of Object.values(parts)) if (typeof one !== "number") one.dispose();
    }
  }

  /**
   * @internal Lets steps update again after gradients that were not finite. Returns how many steps that left undone; they no
   * longer count.
   */
  async recover(): Promise<number> {
    const undone = wrapped(session().optimizerUndone(this.#alive()));
    try {
      const steps = await undone.item();
      if (steps > 0) session().optimizerClearLatch(this.#alive(), steps);
      return steps;
    } finally {
      undone.dispose();
    }
  }

  /** @internal Makes anew what it derives from the model's values, which have been replaced. */
  async renew(): Promise<void> {}

  /** Frees the state. The parameters stay as they are. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#unheard?.();
    net.unregister(this);
    session().disposeOptimizer(this.#id);
  }

  /** `dispose()`, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The parameters of all groups, in order. */
  get #parameters(): readonly Tensor[] {
    return this.groups.flatMap(({ params }) => params);
  }

  #stateNames({ shape }: Tensor): string[] {
    return Object.keys(this.#states(shape));
  }

  #alive(): number {
    if (this.#disposed) throw new LowrankError("ERR_DISPOSED", "an optimizer is used after dispose()");
    return this.#id;
  }

  #options(): (Options & { params?: undefined })[] {
    return this.groups.map((group) => ({ ...group, params: undefined }) as Options & { params?: undefined });
  }
}

function grouped<Options>(where: string, params: Parameters<Options>): ParameterGroup<Options>[] {
  const all = listed(where, "params", params) as (Tensor | ParameterGroup<Options>)[];
  const tensors = all.filter((one) => isTensor(one));
  const other = all.findIndex((one) => typeof one !== "object" || one === null || Array.isArray(one));
  if (other >= 0) refuse(where, `params[${other}]`, "a tensor, or a group { params, … }", all[other]);
  if (tensors.length === 0) return all as ParameterGroup<Options>[];
  if (tensors.length < all.length) {
    throw new LowrankError(
      "ERR_OPTION",
      `${where}: params are tensors or groups of them, not both in one list`,
    );
  }
  return [{ params: tensors } as unknown as ParameterGroup<Options>];
}

/** The tensors of a group. Throws `ERR_OPTION`. */
export function parametersOf(where: string, params: unknown): Tensor[] {
  return listed(where, "params", params).map((one) =>
    isTensor(one) ? one : refuse(where, "params", "a list of tensors", one),
  );
}

function listed(where: string, name: string, value: unknown): unknown[] {
  const iterable = typeof value === "object" && value !== null && Symbol.iterator in value;
  return iterable ? [...(value as Iterable<unknown>)] : refuse(where, name, "a list of tensors", value);
}

/** Options whose values are of the kinds that the rules take; the engine checks their ranges. */
function checkedOptions<Options>(where: string, given: Options): Options {
  for (const [name, value] of Object.entries(given as Record<string, unknown>)) {
    if (name === "nesterov") flag(where, name, value);
    else if (name === "betas" || (name === "eps" && typeof value === "object")) {
      const pair = listOf(where, name, value, numeric);
      if (pair.length !== 2) refuse(where, name, "two numbers", value);
    } else numeric(where, name, value);
  }
  return given;
}

/** A state dict that looks as one. Throws `ERR_OPTION`. */
function checkedState<Options>(given: OptimizerState<Options>): OptimizerState<Options> {
  const { state, paramGroups } = ((given as unknown) ?? {}) as Partial<OptimizerState<Options>>;
  const groups: unknown = paramGroups;
  const whole =
    typeof state === "object" &&
    state !== null &&
    Array.isArray(groups) &&
    groups.every((group: unknown) => Array.isArray((group as { params?: unknown } | null)?.params)) &&
    Object.values(state).every(
      (one) => typeof one === "object" && one !== null && Number.isSafeInteger(one.step),
    );
  return whole ? given : refuse("loadStateDict", "the state", "what stateDict() gives", given);
}

function tensorOf(state: ParameterState, name: string, place: number): Tensor {
  const value = state[name];
  if (isTensor(value)) return value;
  throw new LowrankError(
    "ERR_UNMATCHED_KEY",
    `loadStateDict: the state of parameter ${place} has no ${name}`,
  );
}
