/**
 * The only importer of the native binary: loads it on first use, holds this environment's session, and converts native
 * errors to `LowrankError`.
 */
import { join } from "node:path";
import type * as Binding from "../../native/binding.js";
import { findCacheFolder } from "../package/cache-folder.js";
import { lookForCompilers } from "./compiler-files.js";
import { LowrankError, type ErrorCode } from "../errors.js";
import { detectPlatform, createLoadError } from "./load-error.js";
import { requireFromPackage } from "../package/files.js";

export type Native = typeof Binding;
export type Session = Binding.Session;
export type LowRankPath = Binding.LowRankPath;
/** The results of autotuning a GPU's kernels. */
export type TuneReport = Binding.TuneReport;
/** The driver's information about a GPU. */
export type GpuDetails = Binding.GpuDetails;
/** A memory-mapped safetensors file, or a folder of shards. */
export type WeightsFile = Binding.WeightsFile;
/** The offloaded weights of a model on one device. */
export type OffloadedWeights = Binding.Offload;
/** A GGUF file: tensors by name, and metadata. */
export type GgufFile = Binding.GgufFile;

/** Bytes of possibly unreachable tensors from which it is worth forcing a garbage collection when idle. */
const GARBAGE = 8 * 2 ** 20;

/** Functions for single operations, without the overhead of a session's method. */
export type Direct = ReturnType<Session["direct"]>;

let loaded: Native | undefined;
let open: Session | undefined;
let calls: Direct | undefined;

/**
 * The most recently created handle: its id, the codes of its dtype and device, its rank and its shape. Written by native
 * code.
 */
export const lastMade = new Float64Array(32).fill(-1);

/** Returns the binding. Throws `ERR_NATIVE_LOAD` with reason and remedy. */
export function native(): Native {
  loaded ??= load();
  return loaded;
}

function load(): Native {
  const binding = loadBinding();
  // Autotuning results are stored for later processes.
  const folder = findCacheFolder();
  if (folder !== undefined) binding.keepTuningIn(join(folder, "tune"));
  lookForCompilers(binding);
  return binding;
}

function loadBinding(): Native {
  try {
    return requireFromPackage("native/binding.cjs") as Native;
  } catch (cause) {
    throw createLoadError(cause, detectPlatform());
  }
}

/** Returns this environment's session, which is closed when the process exits. */
export function session(): Session {
  if (open === undefined) {
    open = wrapMethods(new (native().Session)());
    open.onRest(giveBack);
    open.onNotice((text) => process.emitWarning(text, { type: "LowrankWarning" }));
    open.describeInto(lastMade);
    process.once("exit", close);
  }
  return open;
}

/** Returns this environment's functions for single operations and handles. */
export function direct(): Direct {
  calls ??= wrapFunctions(session().direct());
  return calls;
}

/** Wraps the functions so that they throw `LowrankError`. */
function wrapFunctions(raw: Direct): Direct {
  const callWrapped =
    (name: string, call: Function) =>
    (a: unknown, b: unknown, c: unknown): unknown => {
      try {
        return (call as (a: unknown, b: unknown, c: unknown) => unknown)(a, b, c);
      } catch (error) {
        throw translateError(error, name);
      }
    };
  return Object.fromEntries(
    (Object.entries(raw) as [string, Function][]).map(([name, call]) => [name, callWrapped(name, call)]),
  ) as unknown as Direct;
}

/** Releases idle memory of one device or all: when a run ends, and after some seconds without work. */
export function giveBack(device?: string): void {
  open?.collect(GARBAGE);
  open?.trim(device);
}

/** Cancels running work and closes the devices at the end of an environment. */
function close(): void {
  open?.close();
}

/** Wraps an object so that its methods throw `LowrankError`. */
export function wrapMethods<T extends object>(target: T): T {
  const out: Record<string, unknown> = {};
  const prototype = Object.getPrototypeOf(target) as object;
  for (const name of Object.getOwnPropertyNames(prototype)) {
    const method = (target as Record<string, unknown>)[name];
    if (name === "constructor" || typeof method !== "function") continue;
    out[name] = (...args: unknown[]): unknown => {
      try {
        return (method as Function).apply(target, args);
      } catch (error) {
        throw translateError(error, name);
      }
    };
  }
  return out as T;
}

/** Runs `f` and converts native errors to `LowrankError`. */
export function call<T>(f: () => T): T {
  try {
    return f();
  } catch (error) {
    throw translateError(error);
  }
}

/** Converts a native error to `LowrankError` and returns other errors unchanged. `where` is the called function. */
export function translateError(error: unknown, where?: string): unknown {
  const { code, message = "" } = error as { code?: string | undefined; message?: string | undefined };
  if (error instanceof LowrankError || typeof code !== "string") return error;
  if (code.startsWith("ERR_")) return new LowrankError(code as ErrorCode, message, { cause: error });
  const named = where === undefined ? message : `${where}: ${message}`;
  // The code that the binding uses for panics and for argument types that it cannot convert.
  if (code === "GenericFailure") {
    const place = native().lastPanic();
    const fault = typeof place === "string" ? `${named} (${place})` : named;
    return new LowrankError("ERR_INTERNAL", fault, { cause: error });
  }
  return /^[A-Z][a-z]+([A-Z][a-z]+)*$/.test(code)
    ? new LowrankError("ERR_OPTION", named, { cause: error })
    : error;
}

/** Returns a promise result of the binding, or throws it if it is a failure. */
export function unwrapResult<T>(value: T | Binding.Failure): T {
  if (value !== null && typeof value === "object" && "code" in value && "message" in value) {
    throw new LowrankError(value.code as ErrorCode, value.message);
  }
  return value as T;
}
