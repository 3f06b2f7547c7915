/** The base class of optimizers: parameters in groups, each with options, and a state on the device. */
import {
  checkFlag,
  checkList,
  checkNumberThat,
  checkNumber,
  checkKnownOptions,
  refuse,
  checkText,
} from "../arguments/check.js";
import { LowrankError } from "../errors.js";
import { session, unwrapResult } from "../native/binding.js";
import { registerRead, readAlong, type StartedRead } from "../native/reads.js";
import { countElementBytes } from "../files/safetensors.js";
import { scope } from "../tensor/scope.js";
import { isTensor, type Tensor, wrapHandle } from "../tensor/tensor.js";
import { readState, writeState } from "./state-file.js";

/** The options that every optimizer has. */
export interface RuleOptions {
  /** The learning rate. */
  lr: number;
  /** The strength of weight decay; its form depends on the optimizer. */
  weightDecay: number;
}

/** Parameters with separate options; options that are missing default to the optimizer's. */
export type ParameterGroup<Options> = {
  /** The tensors to train. */
  params: Iterable<Tensor>;
} & Partial<Options>;

/** Parameters, or groups of them. */
export type Parameters<Options> = Iterable<Tensor> | Iterable<ParameterGroup<Options>>;

/** A group of an optimizer; `lr` and the other options may change between steps. */
export type HeldGroup<Options> = {
  /** The tensors that are trained. */
  readonly params: readonly Tensor[];
} & Options;

/** The state of one parameter, by PyTorch's names; the tensors belong to the optimizer. */
export type ParameterState = {
  /** The number of updates of the parameter. */
  step: number;
} & Record<string, Tensor | number>;

/** The result of `stateDict()`. */
export interface OptimizerState<Options> {
  /** By the parameter's index; parameters that were never updated are missing. */
  state: Record<number, ParameterState>;
  /** The groups' options, and the indices of their parameters, counted over all groups. */
  paramGroups: (Options & {
    /** Indices of the group's parameters. */
    params: number[];
  })[];
}

/** The states of a parameter of a shape, each with its shape, by PyTorch's names. */
export type StateShapes = (shape: readonly number[]) => Readonly<Record<string, readonly number[]>>;

/** States with one value per element. */
function createElementwise(names: readonly string[]): StateShapes {
  return (shape) => Object.fromEntries(names.map((name) => [name, shape]));
}

/** The gradients of all parameters, in parts that the host replaces. */
export interface GradientExchange {
  /** The values of each bucket, in the order in which they are read. */
  readonly values: readonly Promise<Float32Array>[];
  /** As `loss.backward()`; reads each bucket as soon as this completes it. Only for the last backward pass of a step. */
  backward(loss: Tensor): void;
  /** Reads the remaining buckets. The device then waits until each bucket is answered or has failed. */
  finish(): void;
  /** Ends an exchange that was not finished. */
  cancel(): void;
  /** Replaces the values of a bucket. */
  answer(bucket: number, values: Float32Array): void;
  /** Fails everything that depends on a bucket. */
  fail(bucket: number, reason: string): void;
}

/** Frees the state of optimizers that were not disposed. */
const net = new FinalizationRegistry<number>((id) => session().disposeOptimizer(id));

/**
 * Parameters move into one arena when an optimizer is created, so that a step is one launch per group.
 *
 * A step whose gradients are not all finite (NaN, or an infinity) is skipped: parameters and state stay unchanged, and
 * the step does not count, as with PyTorch's `GradScaler`. Later steps work. When the next value is awaited (`item()`,
 * `data()`, `synchronize()`), a process warning with the code `ERR_NOT_FINITE` reports it; `skipped` counts such steps.
 */
export abstract class Optimizer<Options extends RuleOptions = RuleOptions> {
  /** The parameters in groups, with the options of each, which may change between steps. */
  readonly groups: HeldGroup<Options>[];
  readonly #id: number;
  readonly #rule: string;
  readonly #states: StateShapes;
  #disposed = false;
  #skipped = 0;
  /** Cancels the scheduled reading of the number of skipped steps. */
  #cancelRead: (() => void) | undefined;
  /** The pending reading of that number. */
  #pendingRead: Promise<void> | undefined;

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
    checkText("Optimizer", "where", where);
    this.#rule = rule;
    this.#states = typeof states === "function" ? states : createElementwise(states);
    this.groups = parseGroups(where, params).map((group, i) => {
      const { params: tensors, ...given } = group;
      const name = `${where}: group ${i}`;
      const chosen = checkKnownOptions(
        name,
        given as unknown as Options,
        Object.keys(defaults) as (keyof Options & string)[],
      );
      const set = Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== undefined));
      return { ...checkOptions(name, { ...defaults, ...set }), params: listParameters(name, tensors) };
    });
    const ids = this.groups.map(({ params }) => params.map((tensor) => tensor.id));
    this.#id = session().optimizer(rule, ids, this.#copyOptions());
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
   * As `step`, with gradients clipped to a joint norm of at most `max` as they are applied; the gradients stay
   * unchanged. Returns their norm, a tensor of shape [].
   *
   * Throws as `step`, and `ERR_OPTION` for a norm below 0.
   */
  stepClipped(max: number | undefined): Tensor {
    const norm = this.update(max, false);
    // A meta device runs nothing, and has no values.
    if (!norm.device.startsWith("meta")) this.#cancelRead ??= registerRead(() => this.#readSkipped());
    return norm;
  }

  /**
   * @internal As `stepClipped`, for a loop that reads the norm itself after it has submitted the next step: once a norm
   * is not finite, all later steps are skipped, too, until `recover()`.
   */
  stepLatched(max: number | undefined): Tensor {
    return this.update(max, true);
  }

  /** @internal Appends a step; `latches` as in `stepLatched`. */
  protected update(max: number | undefined, latches: boolean): Tensor {
    if (max !== undefined)
      checkNumberThat("stepClipped", "max", max, (n) => n >= 0, "a number of at least 0");
    return wrapHandle(session().optimizerStep(this.#requireId(), this.#copyOptions(), max, latches));
  }

  /** @internal Bytes of the state once every parameter was updated; the engine keeps it in f32. */
  get stateBytes(): number {
    const sizes = this.#parameters.flatMap(({ shape }) => Object.values(this.#states(shape)));
    const values = sizes.reduce((sum, shape) => sum + shape.reduce((n, d) => n * d, 1), 0);
    return values * countElementBytes("f32");
  }

  /** The number of steps skipped because gradients were not finite, as far as it was read. */
  get skipped(): number {
    return this.#skipped;
  }

  /** Starts to read the number of skipped steps, which are then uncounted and reported; one reading at a time. */
  #readSkipped(): StartedRead | undefined {
    this.#cancelRead?.();
    this.#cancelRead = undefined;
    if (this.#disposed) return undefined;
    if (this.#pendingRead !== undefined) {
      return this.#pendingRead.then(() => {
        this.#cancelRead ??= registerRead(() => this.#readSkipped());
        return readAlong();
      });
    }
    const id = session().optimizerLeftOut(this.#id);
    let done = (): void => {};
    this.#pendingRead = new Promise((resolve) => (done = resolve));
    const handleRead = (bytes: Uint8Array | undefined): void => {
      this.#pendingRead = undefined;
      done();
      if (bytes !== undefined) this.#count(new Float32Array(bytes.buffer, bytes.byteOffset, 1)[0] as number);
    };
    return { id, handleRead };
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
    session().optimizerZeroGrad(this.#requireId());
  }

  /**
   * The state for a checkpoint; its tensors belong to the optimizer, and later steps change them. Skipped steps count
   * until a value has been awaited.
   */
  stateDict(): OptimizerState<Options> {
    const state: Record<number, ParameterState> = {};
    const parameters = this.#parameters;
    for (const [i, { step, values }] of session().optimizerState(this.#requireId()).entries()) {
      if (values.length === 0) continue;
      const names = this.#listStateNames(parameters[i] as Tensor);
      const tensors = values.map((id, k) => [names[k] as string, wrapHandle(id)] as const);
      state[i] = { step, ...Object.fromEntries(tensors) };
    }
    let place = 0;
    const paramGroups = this.groups.map((group) => ({ ...group, params: group.params.map(() => place++) }));
    return { state, paramGroups };
  }

  /** Loads a state from `stateDict()`. Throws `ERR_SHAPE_MISMATCH` if the parameters differ; then nothing changes. */
  loadStateDict(given: OptimizerState<Options>): void {
    const { state, paramGroups } = checkState(given);
    const sizes = (groups: readonly { params: readonly unknown[] }[]): string =>
      groups.map(({ params }) => params.length).join(", ");
    if (sizes(paramGroups) !== sizes(this.groups)) {
      throw new LowrankError(
        "ERR_SHAPE_MISMATCH",
        `loadStateDict: the state has groups of ${sizes(paramGroups)} parameters, the optimizer of ${sizes(this.groups)}`,
      );
    }
    const states = this.#parameters.map((parameter, i) => {
      const loaded = state[i];
      if (loaded === undefined) return { step: 0, values: [] };
      const names = this.#listStateNames(parameter);
      return { step: loaded.step, values: names.map((name) => findStateTensor(loaded, name, i).id) };
    });
    session().optimizerLoadState(this.#requireId(), states);
    for (const [i, group] of this.groups.entries()) {
      const { params: _, ...options } = paramGroups[i] as Options & { params: number[] };
      Object.assign(group, options);
    }
  }

  /**
   * Writes the current state to a safetensors file, atomically: the content of `stateDict()`, without skipped steps.
   * Throws `ERR_WRITE`.
   */
  async save(path: string): Promise<void> {
    checkText("optimizer.save", "path", path);
    // Skipped steps count until their number has been read.
    if (this.#cancelRead !== undefined) await readAlong();
    await writeState(path, this.#rule, this.stateDict());
  }

  /**
   * Loads a state that `save` wrote, for an optimizer of this kind with parameters of the same number, order and
   * shapes; options of groups, such as `lr`, are loaded, too. Nothing changes if it fails. Throws `ERR_FILE_NOT_FOUND`,
   * `ERR_FILE_FORMAT`; `ERR_UNMATCHED_KEY` for another kind, `ERR_SHAPE_MISMATCH` for other parameters.
   */
  // Asynchronous, as `save` is: a device may take time to receive the file's content.
  // eslint-disable-next-line @typescript-eslint/require-await
  async load(path: string): Promise<void> {
    checkText("optimizer.load", "path", path);
    this.#requireId();
    const groups = this.groups.map(({ params, ...options }) => ({
      options,
      states: params.map(({ shape }) => this.#states(shape)),
    }));
    const read = readState(path, { kind: this.#rule, groups });
    const parameters = this.#parameters;
    try {
      scope(() => {
        const loaded = Object.entries(read.state).map(([place, { step, ...parts }]) => {
          const device = parameters[Number(place)]?.device ?? "cpu";
          const moved = Object.entries(parts).map(([name, part]) => [name, (part as Tensor).to(device)]);
          return [place, { step, ...Object.fromEntries(moved) }];
        });
        const state = Object.fromEntries(loaded) as OptimizerState<Options>["state"];
        this.loadStateDict({
          state,
          paramGroups: read.paramGroups as OptimizerState<Options>["paramGroups"],
        });
      });
    } finally {
      for (const parts of Object.values(read.state))
        for (const part of Object.values(parts)) if (typeof part !== "number") part.dispose();
    }
  }

  /**
   * @internal Allows updates again after gradients that were not finite. Returns the number of skipped steps, which no
   * longer count.
   */
  async recover(): Promise<number> {
    const undone = wrapHandle(session().optimizerUndone(this.#requireId()));
    try {
      const steps = await undone.item();
      if (steps > 0) session().optimizerClearLatch(this.#requireId(), steps);
      return steps;
    } finally {
      undone.dispose();
    }
  }

  /** @internal Recomputes data derived from the model's values, after these have been replaced. */
  async renew(): Promise<void> {}

  /**
   * @internal Begins to read the gradients in buckets of at most `most` values, which the answers replace. A parameter
   * without a gradient gets one of zeros.
   */
  beginExchange(most: number): GradientExchange {
    const id = this.#requireId();
    const { values, answers } = session().beginExchange(id, most);
    const reads = values.map(async (read) => {
      const bytes = unwrapResult((await read) as Uint8Array);
      return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    });
    // A bucket is awaited after the earlier buckets, which may fail.
    for (const read of reads) read.catch(() => {});
    const findAnswer = (bucket: number): number => answers[bucket] as number;
    return {
      values: reads,
      backward: (loss) => session().exchangeBackward(id, loss.id),
      finish: () => session().finishExchange(id),
      cancel: () => session().cancelExchange(id, Uint32Array.from(answers)),
      answer: (bucket, sums) =>
        session().answerBucket(
          findAnswer(bucket),
          new Uint8Array(sums.buffer, sums.byteOffset, sums.byteLength),
        ),
      fail: (bucket, reason) => session().failBucket(findAnswer(bucket), reason),
    };
  }

  /** Frees the state. The parameters stay unchanged. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#cancelRead?.();
    net.unregister(this);
    session().disposeOptimizer(this.#id);
  }

  /** `dispose()`, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The parameters of all groups, group by group. */
  get #parameters(): readonly Tensor[] {
    return this.groups.flatMap(({ params }) => params);
  }

  #listStateNames({ shape }: Tensor): string[] {
    return Object.keys(this.#states(shape));
  }

  /** @internal The engine's number of the optimizer. Throws `ERR_DISPOSED`. */
  get nativeId(): number {
    return this.#requireId();
  }

  #requireId(): number {
    if (this.#disposed) throw new LowrankError("ERR_DISPOSED", "an optimizer is used after dispose()");
    return this.#id;
  }

  #copyOptions(): (Options & { params?: undefined })[] {
    return this.groups.map((group) => ({ ...group, params: undefined }) as Options & { params?: undefined });
  }
}

function parseGroups<Options>(where: string, params: Parameters<Options>): ParameterGroup<Options>[] {
  const all = checkArray(where, "params", params) as (Tensor | ParameterGroup<Options>)[];
  const tensors = all.filter((item) => isTensor(item));
  const other = all.findIndex((item) => typeof item !== "object" || item === null || Array.isArray(item));
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
export function listParameters(where: string, params: unknown): Tensor[] {
  return checkArray(where, "params", params).map((item) =>
    isTensor(item) ? item : refuse(where, "params", "a list of tensors", item),
  );
}

function checkArray(where: string, name: string, value: unknown): unknown[] {
  const iterable = typeof value === "object" && value !== null && Symbol.iterator in value;
  return iterable ? [...(value as Iterable<unknown>)] : refuse(where, name, "a list of tensors", value);
}

/** Checks the types of options; the engine checks their ranges. */
function checkOptions<Options>(where: string, given: Options): Options {
  for (const [name, value] of Object.entries(given as Record<string, unknown>)) {
    if (name === "nesterov") checkFlag(where, name, value);
    else if (name === "betas" || (name === "eps" && typeof value === "object")) {
      const pair = checkList(where, name, value, checkNumber);
      if (pair.length !== 2) refuse(where, name, "two numbers", value);
    } else checkNumber(where, name, value);
  }
  return given;
}

/** Checks the structure of a state dict. Throws `ERR_OPTION`. */
function checkState<Options>(given: OptimizerState<Options>): OptimizerState<Options> {
  const { state, paramGroups } = ((given as unknown) ?? {}) as Partial<OptimizerState<Options>>;
  const groups: unknown = paramGroups;
  const isComplete =
    typeof state === "object" &&
    state !== null &&
    Array.isArray(groups) &&
    groups.every((group: unknown) => Array.isArray((group as { params?: unknown } | null)?.params)) &&
    Object.values(state).every(
      (entry) => typeof entry === "object" && entry !== null && Number.isSafeInteger(entry.step),
    );
  return isComplete ? given : refuse("loadStateDict", "the state", "what stateDict() gives", given);
}

function findStateTensor(state: ParameterState, name: string, place: number): Tensor {
  const value = state[name];
  if (isTensor(value)) return value;
  throw new LowrankError(
    "ERR_UNMATCHED_KEY",
    `loadStateDict: the state of parameter ${place} has no ${name}`,
  );
}
