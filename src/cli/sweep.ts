import { Command } from "commander";
import { runWithOptionNames } from "../arguments/option-name.js";
import { LowrankError } from "../errors.js";
import {
  locateDefaultData,
  locateDefaultHeldOut,
  locateDefaultModel,
  locateDefaultRecipe,
} from "../models/default.js";
import type { SweepOptions } from "../train/sweep/options.js";
import { applyConfig, readConfig } from "./finetune/config-file.js";
import { findFlag } from "./finetune/option-names.js";
import { checkFlags, declareFlags, type Flags, listGivenOptions } from "./finetune/options.js";
import { applySweepFile, nameInSpace } from "./sweep/config-file.js";
import { createHumanRenderer, createJsonRenderer } from "./sweep/render.js";
import { AnsweredNo, Interrupted, notice, UsageError } from "./terminal/failure.js";
import { watchSignals } from "./terminal/interrupt.js";

/** Options of a single run. */
const WITHOUT = ["resume", "dashboard", "profile", "deviceShares", "deterministic"];

export function createSweepCommand(): Command {
  const command = new Command("sweep").description(
    "train many adapters over one model, with the settings of a file, and compare them",
  );
  return declareFlags(command, WITHOUT).action(async () => {
    const { config, json } = command.opts<Flags>();
    if (config === undefined)
      throw new UsageError("give --config FILE: a YAML or JSON file with options and a space of values");
    const options = await readOptions(command, config);
    const names = (option: string): string | undefined =>
      SWEEP_NAMES[option] ?? (isInSpace(options, option) ? nameInSpace(option) : findFlag(command, option));
    await runWithOptionNames(names, () => runSweep(options, { config, json: json === true }));
  });
}

/** The keys of the sweep's options in a file. */
const SWEEP_NAMES: Readonly<Record<string, string>> = {
  spaceSeed: "space-seed",
  sideBySide: "side-by-side",
};

function isInSpace({ space }: SweepOptions, path: string): boolean {
  const [first = "", second] = path.split(".");
  const value = (space as unknown as Record<string, Record<string, unknown>>)[first];
  return second === undefined ? value !== undefined : value?.[second] !== undefined;
}

/** Returns the options of the command line and the file. Without model, data and adapter, the embedded ones. */
async function readOptions(command: Command, config: string): Promise<SweepOptions> {
  const settings = await applySweepFile(command, config);
  const { model, data, adapter } = command.opts<Flags>();
  if ([model, data, adapter].every((value) => value === undefined)) {
    const recipe = Object.entries(await readConfig(locateDefaultRecipe()));
    const open = recipe.filter(
      ([key]) =>
        !isInSpace(settings, toOptionPath(key)) && !(key === "epochs" && isInSpace(settings, "steps")),
    );
    applyConfig(command, Object.fromEntries(open), {
      file: locateDefaultRecipe(),
      strength: "default",
      source: "recipe",
    });
    const flags = command.opts<Flags>();
    checkFlags(flags);
    const needsSplit = flags.evalData === undefined && flags.evalSplit === undefined;
    return {
      ...listGivenOptions(command),
      model: locateDefaultModel(),
      data: locateDefaultData(),
      ...(needsSplit && { evalData: locateDefaultHeldOut() }),
      ...settings,
    };
  }
  checkFlags(command.opts<Flags>());
  return { ...listGivenOptions(command), ...settings };
}

function toOptionPath(key: string): string {
  return { lr: "optimizer.lr", "batch-size": "batchSize", "grad-accum": "gradientAccumulation" }[key] ?? key;
}

async function runSweep(
  options: SweepOptions,
  { config, json }: { config: string; json: boolean },
): Promise<void> {
  const { sweep } = await import("../train/sweep/sweep.js");
  const show = json ? createJsonRenderer(process.stdout) : createHumanRenderer(process.stdout);
  const run = sweep(options);
  let began = false;
  const interrupt = watchSignals(() => {
    const what = began ? "finishing the step and saving" : "stopping";
    process.stderr.write(`\nlowrank: ${what}; Ctrl-C again stops at once\n`);
    run.stop().catch(() => {});
  });
  try {
    for await (const event of run) {
      began ||= event.type === "group";
      show(event);
    }
    const { trials, stopped } = await run.result;
    const finished = trials.filter(({ state }) => ["done", "halted", "failed"].includes(state)).length;
    if (stopped)
      notice(
        `stopped with ${finished} of ${trials.length} trials finished; the same command continues with the others`,
      );
    if (interrupt.asked !== undefined) throw new Interrupted(interrupt.asked);
    if (!stopped && trials.every(({ state }) => state === "failed")) throw new AnsweredNo();
  } catch (error) {
    if (error instanceof LowrankError && error.code === "ERR_OPTION")
      throw new UsageError(`${config}: ${error.message.replace(/^(sweep|finetune): /, "")}`);
    throw error;
  } finally {
    interrupt.release();
  }
}
