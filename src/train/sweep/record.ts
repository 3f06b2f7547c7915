/** `sweep.json`: the trials of a sweep with their settings and losses. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { LowrankError, readSystemCode } from "../../errors.js";
import { writeWhole } from "../../files/safetensors.js";
import { optionName } from "../../arguments/option-name.js";
import { type Line, readOrigin } from "../output/lineage.js";
import { parseSealed, sealJson } from "../output/manifest.js";
import type { Identities } from "../output/run-file.js";
import { rankTrials, type TrialSummary } from "./events.js";
import { listDecidingOptions, type ParsedSweep, type Trial } from "./options.js";

/** The name of the file. */
export const SWEEP_FILE = "sweep.json";
const VERSION = 1;

/** A trial in the file. */
interface RecordedTrial extends TrialSummary {
  /** The options that decide its result. */
  options: Record<string, unknown>;
  /** The first lineage of its run in this sweep; absent before it trains. */
  lineage?: string;
  /** Whether it replaces a run that was in its folder before this sweep. */
  replaces: boolean;
}

interface SweepFile {
  version: number;
  kind: "sweep";
  started: string;
  identities: Identities;
  halving: ParsedSweep["halving"] | null;
  /** The trials, the best first. */
  trials: RecordedTrial[];
}

/** The states of trials that need no more training. */
const FINISHED = new Set<TrialSummary["state"]>(["done", "halted", "failed"]);

export class SweepRecord {
  readonly #file: string;
  readonly #value: SweepFile;
  readonly #trials: Map<string, RecordedTrial>;
  /** Writes are sequential. */
  #lastWrite: Promise<void> = Promise.resolve();

  private constructor(file: string, value: SweepFile) {
    this.#file = file;
    this.#value = value;
    this.#trials = new Map(value.trials.map((trial) => [trial.name, trial]));
  }

  /**
   * Reads the record of a folder. Undefined if there is none. Throws `ERR_OUTPUT_EXISTS` for a file that no sweep wrote.
   */
  static async read(folder: string): Promise<SweepRecord | undefined> {
    const file = join(folder, SWEEP_FILE);
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes(readSystemCode(error) ?? "")) return undefined;
      throw error;
    }
    try {
      const value = parseSealed(text) as SweepFile;
      if (value.kind !== "sweep" || value.version !== VERSION)
        throw new SyntaxError("is not a sweep of this version");
      return new SweepRecord(file, value);
    } catch (cause) {
      throw new LowrankError(
        "ERR_OUTPUT_EXISTS",
        `${file}: is not the record of a sweep: ${(cause as Error).message}; move it away, or choose another folder`,
        { cause },
      );
    }
  }

  /** Makes the record of a new sweep. */
  static create(
    folder: string,
    { trials, halving, common }: ParsedSweep,
    identities: Identities,
  ): SweepRecord {
    return new SweepRecord(join(folder, SWEEP_FILE), {
      version: VERSION,
      kind: "sweep",
      started: new Date().toISOString(),
      identities,
      halving: halving ?? null,
      trials: trials.map((trial) => makeRecorded(trial, common.overwrite)),
    });
  }

  /**
   * Checks that this is an earlier, perhaps interrupted, run of the same sweep, and adds new trials at its end. Throws
   * `ERR_OUTPUT_EXISTS`.
   */
  continue({ trials, halving }: ParsedSweep, identities: Identities): void {
    const refuse = (what: string): never => {
      throw new LowrankError(
        "ERR_OUTPUT_EXISTS",
        `${this.#file}: contains another sweep: ${what}; replace it with ${optionName("overwrite")}, or choose another folder with ${optionName("output")}`,
      );
    };
    const { identities: then } = this.#value;
    for (const [part, what] of [
      ["base", "the model"],
      ["tokenizer", "the tokenizer"],
      ["data", "the training data"],
      ["evalData", "the held-out data"],
      ["adapter", "the adapter to start from"],
    ] as const)
      if (then[part] !== identities[part]) refuse(`${what} differs`);
    if (JSON.stringify(this.#value.halving) !== JSON.stringify(halving ?? null))
      refuse(`${optionName("halving")} differs`);
    if (this.#trials.size > trials.length)
      refuse(`it has ${this.#trials.size} trials, and there are ${trials.length} now`);
    for (const trial of trials) {
      const known = this.#trials.get(trial.name);
      const current = makeRecorded(trial, false);
      if (known === undefined) this.#trials.set(trial.name, current);
      else {
        const name = findDifference(known.options, current.options);
        if (name !== undefined)
          refuse(
            `${optionName(name)} of ${trial.name} was ${format(known.options, name)}, and is ${format(current.options, name)} now`,
          );
      }
    }
  }

  get trials(): TrialSummary[] {
    return [...this.#trials.values()].map((trial) => {
      const { options: _options, lineage: _lineage, replaces: _replaces, ...summary } = trial;
      return summary;
    });
  }

  isFinished(name: string): boolean {
    const state = this.#trials.get(name)?.state;
    return state !== undefined && FINISHED.has(state);
  }

  /** Whether a run that a new run of the trial finds in its folder is to be replaced. */
  replaces(name: string): boolean {
    const { lineage, replaces } = this.#trials.get(name) as RecordedTrial;
    return replaces || lineage !== undefined;
  }

  /** Returns the first lineage of a trial's run in this sweep; undefined if the trial has not begun. */
  findOrigin(name: string): string | undefined {
    return this.#trials.get(name)?.lineage;
  }

  /** Records that a trial begins, so that it can be continued if the process is killed. Throws `ERR_WRITE`. */
  async begin(name: string, line: Line): Promise<void> {
    const known = this.#trials.get(name) as RecordedTrial;
    const lineage = readOrigin(line);
    if (known.lineage === lineage) return;
    this.#trials.set(name, { ...known, lineage });
    await this.write();
  }

  /** Replaces the summary of a trial and writes the file atomically. Throws `ERR_WRITE`. */
  async update(summary: TrialSummary): Promise<void> {
    const known = this.#trials.get(summary.name) as RecordedTrial;
    this.#trials.set(summary.name, { ...known, ...summary });
    await this.write();
  }

  /** Throws `ERR_WRITE`. */
  write(): Promise<void> {
    const ranked = rankTrials([...this.#trials.values()]);
    const text = sealJson({ ...this.#value, trials: ranked });
    const written = this.#lastWrite.then(() => writeWhole(this.#file, text));
    this.#lastWrite = written.catch(() => {});
    return written;
  }
}

function makeRecorded({ name, values, settings }: Trial, replaces: boolean): RecordedTrial {
  return {
    name,
    folder: name,
    values,
    state: "waiting",
    steps: 0,
    loss: null,
    recentLoss: null,
    evalLoss: null,
    evaluations: {},
    comparisons: {},
    seconds: 0,
    options: listDecidingOptions(settings),
    replaces,
  };
}

/** Returns the path of the first option with different values. */
function findDifference(then: Record<string, unknown>, after: Record<string, unknown>): string | undefined {
  for (const name of new Set([...Object.keys(then), ...Object.keys(after)])) {
    const [was, is] = [then[name], after[name]];
    if (JSON.stringify(was) === JSON.stringify(is)) continue;
    if (!["lora", "optimizer"].includes(name)) return name;
    return `${name}.${findDifference((was ?? {}) as Record<string, unknown>, (is ?? {}) as Record<string, unknown>)}`;
  }
  return undefined;
}

function format(options: Record<string, unknown>, path: string): string {
  const [first = "", second] = path.split(".");
  const value = second === undefined ? options[first] : (options[first] as Record<string, unknown>)[second];
  if (value === undefined || value === null) return "not given";
  return typeof value === "string" ? value : JSON.stringify(value);
}
