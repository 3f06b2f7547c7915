/** The adapter after each step of an undisturbed run. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

import { finetune } from "../../../src/index.js";
import { temporary } from "../../hashed.js";

/** A stretch of a run with one learning rate. */
export interface Stretch {
  from: number;
  lr: number;
}

/** Stretches in the order of their steps, the first from 0. */
export type Course = readonly Stretch[];

export interface Subject {
  model: string;
  data: string;
  seed: number;
  steps: number;
}

/** Returns the course up to a step, as a checkpoint there records it. */
export function upTo(course: Course, step: number): Course {
  return course.filter(({ from }) => from < step || from === 0);
}

/** Returns the course that continues from a step with another rate. */
export function onward(course: Course, step: number, lr: number | undefined): Course {
  const before = upTo(course, step);
  return lr === undefined || lr === before.at(-1)?.lr ? before : [...before, { from: step, lr }];
}

/** Runs each course once, with a checkpoint at every step. */
export class References {
  readonly #folders = new Map<string, Promise<string>>();

  /** Returns the adapter's file after `step` steps of a course. */
  async at(subject: Subject, course: Course, step: number): Promise<Buffer> {
    const folder = await this.#folder(subject, upTo(course, step));
    return readFileSync(join(folder, `checkpoint-${step}`, "adapter_model.safetensors"));
  }

  #folder(subject: Subject, course: Course): Promise<string> {
    const key = JSON.stringify([subject, course]);
    const known = this.#folders.get(key);
    if (known !== undefined) return known;
    const made = this.#run(subject, course);
    this.#folders.set(key, made);
    return made;
  }

  async #run(subject: Subject, course: Course): Promise<string> {
    const { from, lr } = course.at(-1) as Stretch;
    const output = join(temporary(), "reference");
    const common = { output, saveEvery: 1, keep: 10_000, optimizer: { lr } };
    if (from === 0) {
      await finetune({ ...optionsOf(subject), ...common }).result;
      return output;
    }
    const before = await this.#folder(subject, course.slice(0, -1));
    await finetune({ resume: join(before, `checkpoint-${from}`), ...common }).result;
    return output;
  }

  /** Removes the references of finished scenarios. */
  async clear(): Promise<void> {
    for (const folder of await Promise.all(this.#folders.values())) rmSync(folder, { recursive: true });
    this.#folders.clear();
  }
}

function optionsOf({ model, data, seed, steps }: Subject) {
  return {
    model,
    data,
    seed,
    steps,
    device: "cpu",
    lora: { r: 4 },
    batchSize: 2,
    gradientAccumulation: 2,
    evalSplit: 0.2,
    evalEvery: 5,
  };
}

/** Returns the same options as flags of the command line. */
export function flagsOf({ model, data, seed, steps }: Subject): string[] {
  const flags = { model, data, seed, steps, device: "cpu", rank: 4, "batch-size": 2, "grad-accum": 2 };
  const more = { "eval-split": 0.2, "eval-every": 5 };
  return Object.entries({ ...flags, ...more }).flatMap(([name, value]) => [`--${name}`, String(value)]);
}
