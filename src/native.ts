/**
 * The only importer of the binary. Loads it on first use, holds this environment's session, and
 * turns native errors into `LowrankError`.
 */
import { join } from "node:path";
import type * as Binding from "../native/binding.js";
import { cacheFolder } from "./cache-folder.js";
import { lookForCompilers } from "./compiler-files.js";
import { LowrankError, type ErrorCode } from "./errors.js";
import { here, loadError } from "./native-load.js";
import { fromPackage } from "./place.js";

export type Native = typeof Binding;
export type Session = Binding.Session;
export type LowRankPath = Binding.LowRankPath;
/** What was found on a GPU of the forms of kernels. */
export type TuneReport = Binding.TuneReport;
/** What the driver of a GPU tells of it. */
export type GpuDetails = Binding.GpuDetails;
/** A safetensors file, or a folder of shards, whose tensors are read where they lie. */
export type WeightsFile = Binding.WeightsFile;
/** A GGUF file: tensors by name, and metadata. */
export type GgufFile = Binding.GgufFile;

/** Bytes of tensors perhaps unreachable that are worth a collection of V8's when nothing is done. */
const GARBAGE = 8 * 2 ** 20;

/** What every operation calls: without what a method of the session costs besides. */
export type Direct = ReturnType<Session["direct"]>;

let loaded: Native | undefined;
let open: Session | undefined;
let calls: Direct | undefined;

/**
 * The last handle that was made and what it stands for: its number, those of its dtype and its device, its rank, its
 * shape. Native code writes it.
 */
export const lastMade = new Float64Array(32).fill(-1);

/** The binding. Throws `ERR_NATIVE_LOAD`, which says why and what to do. */
export function native(): Native {
  loaded ??= load();
  return loaded;
}

function load(): Native {
  const binding = required();
  // What is found of a GPU serves the next process.
  const folder = cacheFolder();
  if (folder !== undefined) binding.keepTuningIn(join(folder, "tune"));
  lookForCompilers(binding);
  return binding;
}

function required(): Native {
  try {
    return fromPackage("native/binding.cjs") as Native;
  } catch (cause) {
    throw loadError(cause, here());
  }
}

/** This environment's session. It is closed when the process exits. */
export function session(): Session {
  if (open === undefined) {
    open = guarded(new (native().Session)());
    open.onRest(giveBack);
    open.onNotice((text) => process.emitWarning(text, { type: "LowrankWarning" }));
    open.describeInto(lastMade);
    process.once("exit", close);
  }
  return open;
}

/** This environment's calls for single operations and handles. */
export function direct(): Direct {
  calls ??= translating(session().direct());
  return calls;
}

/** The same calls, which throw `LowrankError`. */
function translating(raw: Direct): Direct {
  const wrapped =
    (name: string, call: Function) =>
    (a: unknown, b: unknown, c: unknown): unknown => {
      try {
        return (call as (a: unknown, b: unknown, c: unknown) => unknown)(a, b, c);
      } catch (error) {
        throw translated(error, name);
      }
    };
  return Object.fromEntries(
    (Object.entries(raw) as [string, Function][]).map(([name, call]) => [name, wrapped(name, call)]),
  ) as unknown as Direct;
}

/**
 * Gives back what devices hold without need, one or all of them: when a run ends, and when there has been no work for
 * some seconds.
 */
export function giveBack(device?: string): void {
  open?.collect(GARBAGE);
  open?.trim(device);
}

/** Cancels what runs and leaves the devices; only at the end of an environment. */
function close(): void {
  open?.close();
}

/** The same object, whose methods throw `LowrankError`. */
export function guarded<T extends object>(target: T): T {
  const out: Record<string, unknown> = {};
  const prototype = Object.getPrototypeOf(target) as object;
  for (const name of Object.getOwnPropertyNames(prototype)) {
    const method = (target as Record<string, unknown>)[name];
    if (name === "constructor" || typeof method !== "function") continue;
    out[name] = (...args: unknown[]): unknown => {
      try {
        return (method as Function).apply(target, args);
      } catch (error) {
        throw translated(error, name);
      }
    };
  }
  return out as T;
}

/** Runs `f`, giving a native error its class. */
export function call<T>(f: () => T): T {
  try {
    return f();
  } catch (error) {
    throw translated(error);
  }
}

/** A native error as a `LowrankError`; anything else as it is. `where` is what was called. */
export function translated(error: unknown, where?: string): unknown {
  const { code, message = "" } = error as { code?: string | undefined; message?: string | undefined };
  if (error instanceof LowrankError || typeof code !== "string") return error;
  if (code.startsWith("ERR_")) return new LowrankError(code as ErrorCode, message, { cause: error });
  const named = where === undefined ? message : `${where}: ${message}`;
  // The binding's own words for a panic, and for an argument of a type that it does not convert.
  if (code === "GenericFailure") {
    const place = native().lastPanic();
    const fault = typeof place === "string" ? `${named} (${place})` : named;
    return new LowrankError("ERR_INTERNAL", fault, { cause: error });
  }
  return /^[A-Z][a-z]+([A-Z][a-z]+)*$/.test(code)
    ? new LowrankError("ERR_OPTION", named, { cause: error })
    : error;
}

/** What a promise of the binding settled with: throws when it is a failure. */
export function settled<T>(value: T | Binding.Failure): T {
  if (value !== null && typeof value === "object" && "code" in value && "message" in value) {
    throw new LowrankError(value.code as ErrorCode, value.message);
  }
  return value as T;
}
