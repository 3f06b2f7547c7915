/** Runs a template with limits on the number of evaluation steps and on time. */
import { createContext, Script } from "node:vm";
import { Interpreter, type Value } from "./jinja.js";
import { stripCall, stripCharacters } from "./strip.js";

type Evaluate = InstanceType<typeof Interpreter>["evaluate"];

/**
 * The maximum steps of one rendering. A statement or expression costs 1, and a list or map one more per eight elements,
 * which also bounds memory.
 */
const STEPS = 2_000_000;
/** The maximum time of one rendering, in milliseconds: a single step can be slow. */
const TIME = 10_000;
/** The maximum length of a list from `range`. */
const LONGEST_RANGE = 100_000;

/** The error of a rendering that exceeds a limit. */
export class OutOfBounds extends Error {}

/** The library's interpreter with a step counter. */
export class BoundedInterpreter extends Interpreter {
  #remainingSteps: number;

  constructor(environment: ConstructorParameters<typeof Interpreter>[0], steps = STEPS) {
    super(environment);
    this.#remainingSteps = steps;
  }

  override evaluate(...[statement, environment]: Parameters<Evaluate>): Value {
    this.#count(1);
    const strip = stripCall(statement);
    const value = strip
      ? stripCharacters(
          strip.method,
          this.evaluate(strip.text, environment),
          this.evaluate(strip.characters, environment),
        )
      : super.evaluate(statement, environment);
    const content = value.value;
    if (Array.isArray(content)) this.#count(content.length / 8);
    else if (content instanceof Map) this.#count(content.size / 8);
    return value;
  }

  #count(steps: number): void {
    this.#remainingSteps -= steps;
    if (this.#remainingSteps < 0) throw new OutOfBounds("it does not terminate");
  }
}

/** Python's `range`, limited to `LONGEST_RANGE` elements. */
export function createRange(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  if (![start, stop, step].every(Number.isInteger)) throw new Error("range() takes whole numbers");
  if (step === 0) throw new Error("range() arg 3 must not be zero");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > LONGEST_RANGE) throw new OutOfBounds(`it asks for a range of ${length} elements`);
  return Array.from({ length }, (_, i) => start + i * step);
}

const context = createContext({ work: undefined as (() => void) | undefined });
const script = new Script("work()");

/** Returns the result of `work`; throws `OutOfBounds` where it takes too long. */
export function limitTime<T>(work: () => T, milliseconds = TIME): T {
  let result: { value: T } | undefined;
  context["work"] = (): void => {
    result = { value: work() };
  };
  try {
    script.runInContext(context, { timeout: milliseconds });
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
    throw new OutOfBounds(`it takes longer than ${milliseconds / 1000} s`, { cause: error });
  } finally {
    context["work"] = undefined;
  }
  return (result as { value: T }).value;
}
