/** Resuming a run: finds the checkpoint, merges the options, and checks the model and the data. */
import { existsSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";

import { listFiles, type TrainingData, isFiles } from "../data/given.js";
import { areDifferent } from "../data/source/pieces.js";
import { STANDARD_INPUT } from "../data/source/source.js";
import { LowrankError } from "../errors.js";
import { isGguf } from "../gguf/read.js";
import { resolveFolder } from "../lora/formats/folder.js";
import { optionName } from "../arguments/option-name.js";
import type { InjectOptions } from "../lora/index.js";
import { openCompanions } from "../models/companion-files.js";
import { readStoredTemplates } from "../models/chat-template-files.js";
import { readProgress } from "./output/checkpoint.js";
import type { Identities } from "./output/run-file.js";
import type { FinetuneOptions } from "./options.js";
import {
  findLastGoodCheckpoint,
  findNewestCheckpoint,
  readSoundCheckpoint,
  type Checkpoint,
} from "./output/checkpoints.js";
import { branchLine, type Line } from "./output/lineage.js";
import { describeDivergence, explainMissing } from "./output/resumable.js";
import { RUN } from "./output/run-file.js";
import { readRunRecord, type RunRecord } from "./output/run-record.js";
import { DEFAULT_OUTPUT, type Settings } from "./settings.js";
import { RESUME_REFUSALS } from "./options/refusals.js";
import { findExcluded, FIXED_OPTIONS, FREE_OPTIONS, RELOCATED_OPTIONS } from "./options/resuming.js";
import { explain } from "../refusals/refusal.js";

/** The source of a resumed run, before anything is read. */
export interface Origin {
  /** The output folder that contains the checkpoint. */
  home: string;
  /** The checkpoint's name in the folder; undefined for the newest. */
  name: string | undefined;
}

/** Resolves the option `resume`; undefined for a new run. Throws `ERR_FILE_NOT_FOUND`. */
export async function resolveResume({
  resume = false,
  output,
}: FinetuneOptions): Promise<Origin | undefined> {
  if (resume === false) return undefined;
  const folder = resume === true ? (output ?? DEFAULT_OUTPUT) : resume;
  if (!existsSync(folder))
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${folder}: ${explainMissing(folder)}`);
  if (resume === true || !(await isCheckpoint(folder))) return { home: folder, name: undefined };
  const full = resolve(folder);
  const home =
    dirname(folder) === folder || basename(folder) !== basename(full) ? dirname(full) : dirname(folder);
  return { home, name: basename(full) };
}

/** Whether a folder is a checkpoint. If its `run.json` cannot be read, its name decides. */
async function isCheckpoint(folder: string): Promise<boolean> {
  if (!existsSync(join(folder, RUN))) return false;
  const progress = await readProgress(folder).catch(() => undefined);
  return progress !== undefined || /^checkpoint-\d+/.test(basename(resolve(folder)));
}

/** A run that is being resumed. */
export interface Resumed {
  checkpoint: Checkpoint;
  /** The lineage from here on: the run's own, or a branch of it. */
  line: Line;
  /** The run's recorded options, overridden by those that are given now. */
  options: FinetuneOptions;
  identities: Identities;
  /** Whether the run continues in another folder. */
  elsewhere: boolean;
  /** The newest checkpoint of the run up to this one that is known to be good. */
  lastGood: string | undefined;
  /** Messages for the user: options that differ, and checkpoints that a branch leaves behind. */
  notices: string[];
}

/**
 * Finds the checkpoint, and completes the options from the run's record.
 *
 * Errors: the errors of `findNewestCheckpoint`; `ERR_OPTION` for a given option that cannot change.
 */
export async function prepareResume({ home, name }: Origin, given: FinetuneOptions): Promise<Resumed> {
  const record = await readRunRecord(home).catch(() => undefined);
  const { checkpoint, notice } =
    name === undefined
      ? await findNewestGood(home, record)
      : acceptNamed(await readSoundCheckpoint(home, name, record?.line));
  const { progress } = checkpoint;
  checkSteps(checkpoint, given);
  // A named checkpoint is resumed with the options that it was saved with, the newest with the run's latest options.
  const { options: then, cwd } = name === undefined && record !== undefined ? record : progress;
  // A record without a format is of a run that joined prompts and completions.
  const recorded = { promptFormat: "raw", ...then };
  const stored = dropLostTemplate(resolvePaths(recorded, cwd), checkpoint.folder);
  checkThere(stored, given);
  const { options, notices } = mergeOptions(stored, given);
  const elsewhere = given.output !== undefined && resolve(given.output) !== resolve(home);
  const onward = await continueLine(home, checkpoint, record, elsewhere);
  return {
    checkpoint,
    line: onward.line,
    options,
    identities: progress.identities,
    elsewhere,
    lastGood: (await findLastGoodCheckpoint(home, progress.line, checkpoint.step))?.folder,
    notices: [...(notice === undefined ? [] : [notice]), ...notices, ...onward.notices],
  };
}

/**
 * Returns the newest checkpoint, or the last good one if the newest is known to be bad.
 *
 * Errors: the errors of `findNewestCheckpoint`; `ERR_NOT_FINITE` if no checkpoint is good.
 */
async function findNewestGood(
  home: string,
  record: RunRecord | undefined,
): Promise<{ checkpoint: Checkpoint; notice?: string | undefined }> {
  const newest = await findNewestCheckpoint(home, record);
  if (newest.progress.good !== false) return { checkpoint: newest };
  const lastGood = await findLastGoodCheckpoint(home, record?.line ?? newest.progress.line, newest.step);
  if (lastGood === undefined)
    throw new LowrankError(
      "ERR_NOT_FINITE",
      `${home}: training had diverged before its first checkpoint: none is good; start a new run with a lower learning rate (${optionName("optimizer.lr")}) or a longer warm-up (${optionName("warmup")}); ${optionName("overwrite")} replaces this one. To resume from a bad checkpoint, name it`,
    );
  return { checkpoint: lastGood, notice: describeDivergence(newest.folder, lastGood.folder) };
}

/** Accepts a checkpoint that was requested by name, good or not. */
function acceptNamed(checkpoint: Checkpoint): { checkpoint: Checkpoint; notice?: string | undefined } {
  if (checkpoint.progress.good !== false) return { checkpoint };
  return { checkpoint, notice: describeDivergence(checkpoint.folder) };
}

/** Throws `ERR_OPTION` if `steps` is below the number of completed steps, before anything is loaded. */
function checkSteps({ folder, step }: Checkpoint, { steps }: FinetuneOptions): void {
  if (steps !== undefined && steps < step) throw createTooFewStepsError(folder, step, steps);
}

/** Returns the error for a run that would end before the checkpoint that it continues from. */
export function createTooFewStepsError(
  folder: string,
  done: number,
  steps: number,
  epochs?: number,
): LowrankError {
  const [end, remedy] =
    epochs === undefined
      ? [`${optionName("steps")} is ${steps}`, "steps"]
      : [`${optionName("epochs")} ${epochs} ends at step ${steps}`, "epochs"];
  return new LowrankError(
    "ERR_OPTION",
    `resume: ${folder} is after step ${done}, and ${end}; give more ${remedy}, or resume from an earlier checkpoint`,
  );
}

async function continueLine(
  home: string,
  checkpoint: Checkpoint,
  record: RunRecord | undefined,
  elsewhere: boolean,
): Promise<{ line: Line; notices: string[] }> {
  const { step, progress, folder } = checkpoint;
  const newest = await findNewestCheckpoint(home, record).catch(() => undefined);
  const head = newest?.folder === folder && !elsewhere;
  if (head) return { line: record?.line ?? progress.line, notices: [] };
  const line = branchLine(progress.line, step);
  const left = elsewhere ? undefined : newest;
  const notices =
    left === undefined || left.step <= step
      ? []
      : [
          `from step ${step} on this is another branch: ${left.folder} and the checkpoints between are kept, and ` +
            `resumed from only by name`,
        ];
  return { line, notices };
}

/** Throws `ERR_FILE_NOT_FOUND` or `ERR_OPTION` if the run's recorded data is no longer available. */
function checkThere(stored: FinetuneOptions, given: FinetuneOptions): void {
  for (const name of ["data", "evalData"] as const) {
    const data: unknown = stored[name];
    if (data === undefined || given[name] !== undefined) continue;
    if (!isFiles(data))
      throw new LowrankError(
        "ERR_OPTION",
        `resume: the run was given rows in memory by ${optionName(name)}; give the same rows again`,
      );
    const files = listFiles(data);
    const all = files.length > 1 ? `all ${files.length} files in the same order: ` : "";
    if (files.includes(STANDARD_INPUT))
      throw new LowrankError(
        "ERR_OPTION",
        `resume: the run read its ${optionName(name)} from standard input: give the same again with ${all}${optionName(name)} -`,
      );
    const path = files.find((file) => !existsSync(file));
    if (path === undefined) continue;
    const what = `the data of the run has moved or is gone; pass its new path with ${optionName(name)}${files.length > 1 ? `, and the ${files.length - 1} other files in the same order` : ""}`;
    throw new LowrankError("ERR_FILE_NOT_FOUND", `${path}: ${what}`);
  }
}

/** Resolves relative paths against the run's original folder. */
function resolvePaths(options: Record<string, unknown>, cwd: string): FinetuneOptions {
  const here = process.cwd();
  const resolveMoved = (path: unknown): unknown => {
    if (Array.isArray(path)) return path.map(resolveMoved);
    if (typeof path !== "string" || isAbsolute(path) || cwd === here) return path;
    const location = resolve(cwd, path);
    return existsSync(location) ? location : path;
  };
  const paths = RELOCATED_OPTIONS.filter((key) => options[key] !== undefined);
  return {
    ...options,
    ...Object.fromEntries(paths.map((key) => [key, resolveMoved(options[key])])),
  } as FinetuneOptions;
}

/** Drops the path of a missing chat template if the checkpoint stores the template. */
function dropLostTemplate(recorded: FinetuneOptions, checkpoint: string): FinetuneOptions {
  const { chatTemplate, ...rest } = recorded;
  if (chatTemplate === undefined || existsSync(chatTemplate)) return recorded;
  const stored = readStoredTemplates(
    openCompanions(resolveFolder(checkpoint, recorded.lora?.name ?? "default")),
  );
  return stored === undefined ? recorded : rest;
}

/** Merges the run's options with those given now. Throws `ERR_OPTION` with the name of each that cannot change. */
function mergeOptions(
  then: FinetuneOptions,
  given: FinetuneOptions,
): { options: FinetuneOptions; notices: string[] } {
  const options: Record<string, unknown> = { ...then };
  // A recorded revision belongs to the recorded model.
  if (given.model !== undefined) delete options["revision"];
  const [changed, refused]: [string[], string[]] = [[], []];
  const compare = (name: string, was: unknown, is: unknown): void => {
    if (JSON.stringify(was ?? null) === JSON.stringify(is ?? null)) return;
    const fixed = [name, name.split(".")[0] as string].some((option) => FIXED_OPTIONS.includes(option));
    (fixed ? refused : changed).push(
      `${optionName(name)} was ${formatOption(was)}, and is ${formatOption(is)} now`,
    );
  };
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (name === "lora" || name === "optimizer") {
      const before = (then[name] ?? {}) as Record<string, unknown>;
      const { evaData: _, ...rest } = value as InjectOptions;
      for (const [key, part] of Object.entries(rest))
        if (part !== undefined) compare(`${name}.${key}`, before[key], part);
      options[name] = { ...before, ...(value as object) };
      continue;
    }
    if (name === "adapter") {
      // The record has the absolute path of the adapter's own folder, which is kept.
      const folder = resolveFolder(value as string, then.lora?.name ?? "default");
      if (resolve(folder) !== then.adapter) compare(name, then.adapter, resolve(value as string));
      continue;
    }
    if (!FREE_OPTIONS.includes(name)) compare(name, then[name as keyof FinetuneOptions], value);
    options[name] = value;
    const excluded = findExcluded(name);
    if (excluded !== undefined && given[excluded as keyof FinetuneOptions] === undefined)
      delete options[excluded];
  }
  if (refused.length > 0) {
    throw new LowrankError(
      "ERR_OPTION",
      `resume: ${refused.join("; ")}: ${explain(RESUME_REFUSALS.resumedOptions)}`,
    );
  }
  return { options: options as FinetuneOptions, notices: changed.map((change) => `resume: ${change}`) };
}

function formatOption(value: unknown): string {
  if (value === undefined || value === null) return "not given";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Returns the one file whose hash changed; all files if several did, or if their number or order is different. */
function findDiffering(
  data: TrainingData | undefined,
  name: "data" | "evalData",
  { sources: then }: Identities,
  { sources: now }: Identities,
): string {
  if (!isFiles(data)) return name;
  const [files, before, after] = [listFiles(data), then?.[name] ?? [], now?.[name] ?? []];
  const others = files.filter((_, i) => before[i] !== after[i]);
  return (before.length === after.length && others.length === 1 ? others : files).join(", ");
}

/** Throws `ERR_OPTION` if the model, the tokenizer or the data differs from the start of the run. */
export function checkSame(then: Identities, now: Identities, settings: Settings): void {
  const { model, data, evalData } = settings;
  const named = typeof model === "string" ? model : (model.source ?? "the model");
  const parts: [Exclude<keyof Identities, "sources">, string, string][] = [
    ["base", named, "the model"],
    ["tokenizer", isGguf(named) ? named : `${named}: tokenizer.json`, "the tokenizer"],
    ["data", findDiffering(data, "data", then, now), "the training data"],
    ["evalData", findDiffering(evalData, "evalData", then, now), "the held-out data"],
  ];
  for (const [part, where, what] of parts) {
    const [before, after] = [then[part], now[part]];
    if (before === undefined || (after !== undefined && !areDifferent(before, after))) continue;
    if (part === "evalData" && evalData === undefined) continue;
    throw new LowrankError(
      "ERR_OPTION",
      `resume: ${where}: ${what} differs from the interrupted run's; resume with the original, or start a new run in another folder`,
    );
  }
}
