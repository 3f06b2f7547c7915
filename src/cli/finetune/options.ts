/** The combinations of `finetune`'s flags, and their conversion to the library's options. */
import type { Command } from "commander";
import { DATA_FORMATS } from "../../data/format.js";
import { locateDefaultData, locateDefaultModel } from "../../models/default.js";
import { optionName } from "../../arguments/option-name.js";
import { OPEN } from "../../train/changeable.js";
import { OPTIMIZER_DEFAULTS } from "../../train/options/optimizer-defaults.js";
import type { FinetuneOptions } from "../../train/options.js";
import { UsageError } from "../terminal/failure.js";
import { declareFlags, type Flags } from "../options/flags.js";
import { PLACES } from "./places.js";

export { declareFlags, type Flags };

/** Checks combinations of options from the command line and from a file. */
export function checkFlags(flags: Flags): void {
  const name = optionName;
  const refuseBoth = (a: keyof Flags, b: keyof Flags): void => {
    if (flags[a] !== undefined && flags[b] !== undefined)
      throw new UsageError(`give one of ${name(a)} and ${name(b)}, not both`);
  };
  refuseBoth("steps", "epochs");
  refuseBoth("evalData", "evalSplit");
  if (flags.resume !== undefined && flags.yes)
    throw new UsageError(
      `${name("resume")} continues the run that ${name("overwrite")} would replace; give one of them`,
    );
  const [fromInput, heldFromInput] = [flags.data, flags.evalData].map(
    (files) => files?.includes("-") === true,
  );
  if (fromInput && heldFromInput) {
    const what = `${name("data")} and ${name("evalData")} cannot both be standard input`;
    throw new UsageError(`${what}; give ${name("evalSplit")}`);
  }
  // A resumed run has stored options in addition to these.
  if (flags.resume !== undefined) return;
  if ((fromInput || heldFromInput) && flags.dataFormat === undefined) {
    const option = name(fromInput ? "data" : "evalData");
    const formats = DATA_FORMATS.join(", ");
    throw new UsageError(`${option} - has no name to go by: give ${name("dataFormat")}, one of ${formats}`);
  }
  for (const needy of ["model", "adapter"] as const)
    if (flags[needy] !== undefined && flags.data === undefined)
      throw new UsageError(`${name(needy)} needs ${name("data")} FILE to train on`);
  const evaluation = flags.evalData ?? flags.evalSplit;
  if (flags.evalEvery !== undefined && evaluation === undefined)
    throw new UsageError(`${name("evalEvery")} needs ${name("evalData")} or ${name("evalSplit")}`);
  if (flags.patience !== undefined && flags.evalEvery === undefined)
    throw new UsageError(`${name("patience")} counts evaluations: it needs ${name("evalEvery")}`);
}

/** Replaces a list of one file by its name, as run.json stores it. */
function unwrapSingle(value: unknown, name: string | undefined): unknown {
  const files = (name === "data" || name === "evalData") && Array.isArray(value);
  return files && value.length === 1 ? value[0] : value;
}

function nestOptions(flags: Partial<Flags>): FinetuneOptions {
  const options: Record<string, unknown> = {};
  for (const [flag, [first, second]] of Object.entries(PLACES)) {
    const value = unwrapSingle(flags[flag as keyof Flags], first);
    if (value === undefined || first === undefined) continue;
    if (second === undefined) options[first] = value;
    else options[first] = { ...(options[first] as object | undefined), [second]: value };
  }
  return options as FinetuneOptions;
}

/** Returns the library's options. `open` lists options that the user did not give, which the memory planner may choose. */
export function toLibraryOptions(flags: Flags, open: readonly string[] = []): FinetuneOptions {
  const lr = flags.lr ?? OPTIMIZER_DEFAULTS[flags.optimizer ?? "adamw"].lr;
  const completed: Flags = { ...flags, lr, data: flags.data ?? [locateDefaultData()] };
  // An adapter to start from has a base model, a rank and an alpha.
  if (flags.adapter === undefined) {
    completed.model ??= locateDefaultModel();
    completed.alpha ??= 2 * flags.rank;
  }
  return Object.assign(nestOptions({ ...completed, ...choosePrecision(flags) }), { [OPEN]: open });
}

/** Returns the library's names of flags that the user did not give. */
export function listOpenOptions(command: Command): string[] {
  return Object.entries(PLACES).flatMap(([flag, [name = ""]]) => (isGiven(command, flag) ? [] : [name]));
}

function isGiven(command: Command, flag: string): boolean {
  return !["default", undefined].includes(command.getOptionValueSource(flag));
}

/** Removes the defaults of flags that describe an adapter. */
export function dropAdapterDefaults(command: Command, flags: Flags): Flags {
  const remaining = Object.entries(flags).filter(
    ([flag]) => PLACES[flag]?.[0] !== "lora" || isGiven(command, flag),
  );
  return Object.fromEntries(remaining) as unknown as Flags;
}

/** Returns only options given on the command line or in a file, for a resumed run. */
export function listGivenOptions(command: Command): FinetuneOptions {
  const flags = command.opts<Flags>();
  const given = Object.entries(flags).filter(([name]) => isGiven(command, name));
  return nestOptions({ ...Object.fromEntries(given), ...choosePrecision(flags) });
}

/** Selects bf16 products for bf16 storage, unless another precision is given. */
function choosePrecision({ dtype, matmulPrecision }: Flags): Partial<Flags> {
  const chosen = matmulPrecision ?? (dtype === "bf16" ? "bf16" : undefined);
  return chosen === undefined ? {} : { matmulPrecision: chosen };
}
