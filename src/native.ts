/**
 * The only importer of the binary. Loads it on first use, holds this environment's session, and
 * turns native errors into `LowrankError`.
 */
import { createRequire } from "node:module";

import type * as Binding from "../native/binding.js";
import { LowrankError, type ErrorCode } from "./errors.js";

export type Native = typeof Binding;
export type Session = Binding.Session;
export type LowRankPath = Binding.LowRankPath;

let loaded: Native | undefined;
let open: Session | undefined;

/** The binding. Throws `ERR_NATIVE_LOAD` with the command that mends it. */
export function native(): Native {
  loaded ??= load();
  return loaded;
}

function load(): Native {
  try {
    return createRequire(import.meta.url)("../native/binding.cjs") as Native;
  } catch (cause) {
    const target = `${process.platform}-${process.arch}`;
    throw new LowrankError(
      "ERR_NATIVE_LOAD",
      `the native engine for ${target} did not load: ${(cause as Error).message.split("\n")[0]} ` +
        `(reinstall with: npm install --os=${process.platform} --cpu=${process.arch} lowrank)`,
      { cause },
    );
  }
}

/** This environment's session. It is closed when the process exits. */
export function session(): Session {
  if (open === undefined) {
    open = guarded(new (native().Session)());
    process.once("exit", close);
  }
  return open;
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
        throw translated(error);
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

/** A native error as a `LowrankError`; anything else as it is. */
export function translated(error: unknown): unknown {
  const { code, message } = error as { code?: string; message?: string };
  if (error instanceof LowrankError || typeof code !== "string" || !code.startsWith("ERR_")) return error;
  return new LowrankError(code as ErrorCode, message ?? code, { cause: error });
}

/** What a promise of the binding settled with: throws when it is a failure. */
export function settled<T>(value: T | Binding.Failure): T {
  if (value !== null && typeof value === "object" && "code" in value && "message" in value) {
    throw new LowrankError(value.code as ErrorCode, value.message);
  }
  return value as T;
}
