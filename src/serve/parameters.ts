/** Reads the parameters of a request's JSON body. Unknown and unsupported ones are rejected by name. */
import { type ApiError, createParameterError } from "./api-error.js";

/** Parameters that do not change the response, whatever their value. */
const WITHOUT_EFFECT = [
  "metadata",
  "parallel_tool_calls",
  "prediction",
  "prompt_cache_key",
  "prompt_cache_retention",
  "safety_identifier",
  "service_tier",
  "store",
  "user",
];

/** Unsupported parameters of the API, each with the values that have no effect and are accepted. */
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = {
  audio: [],
  best_of: [1],
  echo: [false],
  function_call: ["auto", "none"],
  functions: [],
  suffix: [""],
  top_logprobs: [0],
  verbosity: ["medium"],
  web_search_options: [],
};

/** The maximum length of a stop string, in characters, and the maximum number of them. */
const LONGEST_STOP = 1024;
const MOST_STOPS = 4;

/** The body of a request, whose parameters are taken one by one. */
export class Parameters {
  readonly #untaken: Map<string, unknown>;

  /** Null parameters count as absent. */
  constructor(body: Readonly<Record<string, unknown>>) {
    this.#untaken = new Map(Object.entries(body).filter(([, value]) => value !== null));
  }

  /** Takes a parameter; undefined if it is absent. */
  take(name: string): unknown {
    const value = this.#untaken.get(name);
    this.#untaken.delete(name);
    return value;
  }

  /** Takes a required parameter. */
  require(name: string): unknown {
    const value = this.take(name);
    if (value === undefined)
      throw createParameterError(name, `you must provide ${name}`, "missing_required_parameter");
    return value;
  }

  takeText(name: string): string {
    const value = this.require(name);
    if (typeof value === "string") return value;
    throw createWrongValue(name, "a string", value);
  }

  takeFlag(name: string): boolean {
    const value = this.take(name) ?? false;
    if (typeof value === "boolean") return value;
    throw createWrongValue(name, "true or false", value);
  }

  /** Takes a number that satisfies `holds`; `range` describes the condition in errors. */
  takeNumber(name: string, holds: (value: number) => boolean, range: string): number | undefined {
    const value = this.take(name);
    if (value === undefined || (typeof value === "number" && holds(value))) return value;
    throw createWrongValue(name, range, value);
  }

  takeOptionalText(name: string): string | undefined {
    const value = this.take(name);
    if (value === undefined || typeof value === "string") return value;
    throw createWrongValue(name, "a string", value);
  }

  takeWhole(name: string, least: number, most = Number.MAX_SAFE_INTEGER): number | undefined {
    const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
    const isValid = (value: number): boolean =>
      Number.isSafeInteger(value) && value >= least && value <= most;
    return this.takeNumber(name, isValid, `a whole number ${range}`);
  }

  takeObject(name: string): Record<string, unknown> | undefined {
    const value = this.take(name);
    if (value === undefined || isObject(value)) return value;
    throw createWrongValue(name, "an object", value);
  }

  takeStops(): string[] {
    const value = this.take("stop") ?? [];
    const stops: unknown[] = Array.isArray(value) ? value : [value];
    if (stops.length > MOST_STOPS)
      throw createParameterError("stop", `stop takes at most ${MOST_STOPS} texts`);
    for (const stop of stops)
      if (typeof stop !== "string" || stop === "" || stop.length > LONGEST_STOP)
        throw createWrongValue(
          "stop",
          `a text of 1 to ${LONGEST_STOP} characters, or an array of them`,
          stop,
        );
    return stops as string[];
  }

  /**
   * Rejects every parameter that was not taken, unless its value has no effect. Returns the names of those that never
   * have one.
   */
  end(): string[] {
    const ignored: string[] = [];
    for (const [name, value] of this.#untaken) {
      if (WITHOUT_EFFECT.includes(name)) {
        ignored.push(name);
        continue;
      }
      const neutral = Object.hasOwn(NEUTRAL, name) ? NEUTRAL[name] : undefined;
      if (neutral === undefined)
        throw createParameterError(name, `unknown parameter: ${formatParameter(name)}`, "unknown_parameter");
      if (!neutral.includes(value)) throw createUnsupported(name, neutral);
    }
    return ignored;
  }
}

/** Returns the error of an unsupported parameter. */
export function createUnsupported(name: string, neutral: readonly unknown[] = []): ApiError {
  const instead =
    neutral.length > 0 ? ` other than ${neutral.map((value) => JSON.stringify(value)).join(" or ")}` : "";
  return createParameterError(
    name,
    `${name}${instead} is not supported; leave it out`,
    "unsupported_parameter",
  );
}

/** Returns the error of a parameter whose value is not as `expected`. */
export function createWrongValue(name: string, expected: string, value: unknown): ApiError {
  return createParameterError(
    name,
    `${name} must be ${expected}, got ${formatParameter(value)}`,
    "invalid_value",
  );
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function formatParameter(value: unknown): string {
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) return "an object";
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}
