/**
 * A random run of the command with mishaps, from a folder that may contain another run to a complete adapter,
 * compared with a plain record of the files that should be there. A seed determines all choices.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { start, type Ended, type Mishap } from "./child.js";
import type { Random } from "./random.js";
import { drawMishap, SIGNALS } from "./mishap.js";
import { SmallDisk } from "./small-disk.js";
import { flagsOf, onward, type Course, type References, type Subject } from "./reference.js";

/** A checkpoint or a run, as described by its run.json. */
interface Told {
  kind: "run" | "checkpoint";
  line: { lineage: string }[];
  cursor: { step: number };
}

const RATES = [0.02, 0.01, 0.005];

/** The number of times that each thing happened. */
export type Tally = Record<string, number>;

export interface World {
  model: string;
  data: string;
  /** An empty folder for the scenario. */
  room: string;
  references: References;
  random: Random;
  tally: Tally;
  /** Whether the output may be on a separate small file system, which requires root. */
  mounts: boolean;
}

function tellOf(folder: string): Told | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, "run.json"), "utf8")) as Told;
  } catch {
    return undefined;
  }
}

export class Scenario {
  readonly #world: World;
  readonly #output: string;
  readonly #subject: Subject;
  readonly #saveEvery: number;
  /** The course of each lineage, including the lineage that `--resume` alone continues. */
  readonly #courses = new Map<string, { course: Course; subject: Subject }>();
  #course: Course = [{ from: 0, lr: 0.01 }];
  /** Contents of the files that no run wrote, by path. */
  readonly #foreign = new Map<string, string>();
  /** The last complete adapter in the folder. */
  #adapter: Buffer | undefined;
  #disk: SmallDisk | undefined;
  readonly log: string[] = [];

  constructor(world: World) {
    this.#world = world;
    const { random, model, data, room } = world;
    this.#output = join(room, "out");
    this.#subject = { model, data, seed: random.below(2), steps: 18 };
    this.#saveEvery = 2 + random.below(5);
  }

  async run(): Promise<void> {
    const { random, mounts } = this.#world;
    try {
      if (mounts && random.chance(0.25)) {
        this.#disk = new SmallDisk(this.#output);
        this.#count("small file system");
      }
      let replaces = false;
      if (random.chance(0.3)) {
        await this.#earlierRun();
        replaces = true;
      }
      if (random.chance(0.6)) this.#leaveForeign();
      let argv: string[] | undefined = this.#fresh(replaces);
      // After a few invocations there are no more mishaps, so that the scenario ends.
      for (let turn = 0; argv !== undefined; turn++) argv = await this.#invoke(argv, turn < 4);
      await this.#checkEnd();
    } finally {
      this.#disk?.unmount();
    }
  }

  #count(what: string): void {
    this.#world.tally[what] = (this.#world.tally[what] ?? 0) + 1;
  }

  #fresh(replaces: boolean): string[] {
    const { random } = this.#world;
    const lr = random.of(RATES);
    this.#course = [{ from: 0, lr }];
    const more = random.chance(0.3) ? ["--patience", "50"] : [];
    const keep = ["--keep", String(1 + random.below(3)), "--save-every", String(this.#saveEvery)];
    if (replaces) more.push("--yes");
    const json = random.chance(0.8) ? ["--json"] : [];
    return [...this.#command(flagsOf(this.#subject)), "--lr", String(lr), ...keep, ...more, ...json];
  }

  #command(flags: readonly string[]): string[] {
    return ["finetune", "--output", this.#output, ...flags];
  }

  /** Starts a run with another seed, which completes or is stopped. */
  async #earlierRun(): Promise<void> {
    const { random } = this.#world;
    const subject = { ...this.#subject, seed: 7 };
    const argv = [...this.#command(flagsOf(subject)), "--lr", "0.01", "--save-every", "6", "--json"];
    const signals = [{ signal: "SIGINT" as const, after: 0 }];
    const stopped = random.chance(0.5);
    const ended = await start(argv, stopped ? { kind: "signal", signals, line: 9 } : { kind: "none" }).ended;
    assert.equal(ended.status, stopped ? 130 : 0, ended.stderr);
    for (const { lineage } of this.#checkpoints())
      this.#courses.set(lineage, { course: this.#course, subject });
    this.#courses.set(lineageOf(tellOf(this.#output)), { course: [{ from: 0, lr: 0.01 }], subject });
    this.#adapter = this.#adapterNow();
    this.#count("replaces another run");
    // Without --yes the folder is refused, with a line that says what to do.
    const refused = await start(this.#command(flagsOf(this.#subject))).ended;
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /^lowrank: .*already contains a run; .*replace it with --yes/);
    this.#checkKept();
  }

  /** Creates files that no run wrote where a run writes. */
  #leaveForeign(): void {
    const { random } = this.#world;
    const names = ["labels.json", "notes.md", "checkpoint-12/keep.txt", "checkpoint-4", "data/labels.json"];
    for (const name of names.filter(() => random.chance(0.5))) {
      if (existsSync(join(this.#output, name.split("/")[0] as string))) continue;
      this.#write(name, `somebody's own ${random.next()}`);
    }
    this.#count("foreign files");
  }

  #write(name: string, text: string): void {
    const path = join(this.#output, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    this.#foreign.set(path, text);
  }

  /** Runs a command through a mishap; returns the next command, or undefined when the run is complete. */
  async #invoke(argv: string[], troubled: boolean): Promise<string[] | undefined> {
    const { random } = this.#world;
    const before = this.#tellings();
    const mishap = troubled ? this.#mishap() : ({ kind: "none" } as const);
    const full = troubled && this.#disk !== undefined && random.chance(0.6);
    if (full) {
      this.#disk?.fill(random.below(60));
      this.#count("full disk");
    }
    this.log.push(`${argv.slice(1).join(" ")} <- ${JSON.stringify(mishap)}${full ? " full disk" : ""}`);
    const course = this.#intended(argv);
    const goesOn = this.#goesOn(argv);
    const child = start(argv, mishap);
    const rival = troubled && random.chance(0.2) ? this.#rival(child.pid, argv) : undefined;
    const ended = await child.ended;
    this.log.push(`  -> ${ended.status ?? ended.signal} ${ended.stderr.trim()}`);
    await rival;
    if (full) this.#disk?.empty();
    // A late rival may have continued the lineage that this command continued.
    if (goesOn !== undefined && rival !== undefined)
      this.#courses.set(goesOn, { course, subject: this.#subject });
    // A rival uses the same course, unless this command started a new run.
    this.#learn(before, course, rival !== undefined && !argv.includes("--resume"));
    await this.#check(ended, rival !== undefined);
    return this.#next(ended, mishap, full);
  }

  #tellings(): string {
    return existsSync(join(this.#output, "run.json"))
      ? readFileSync(join(this.#output, "run.json"), "utf8")
      : "";
  }

  /** Returns the course that a command is to follow, whether or not it completes. */
  #intended(argv: readonly string[]): Course {
    const from = argv[argv.indexOf("--resume") + 1] as string;
    const lr = argv.includes("--lr") ? Number(argv[argv.indexOf("--lr") + 1]) : undefined;
    if (!argv.includes("--resume")) return [{ from: 0, lr: lr as number }];
    if (from === this.#output) return this.#course;
    const told = tellOf(from) as Told;
    const of = this.#courses.get(lineageOf(told)) as { course: Course };
    return onward(of.course, told.cursor.step, lr);
  }

  /** Returns the lineage that a command continues by naming its newest checkpoint, or undefined. */
  #goesOn(argv: readonly string[]): string | undefined {
    const told = argv.includes("--resume") ? tellOf(argv[argv.indexOf("--resume") + 1] as string) : undefined;
    if (told?.kind !== "checkpoint") return undefined;
    const lineage = lineageOf(told);
    const later = (one: { lineage: string; step: number }): boolean =>
      one.lineage === lineage && one.step > told.cursor.step;
    return this.#checkpoints().some(later) ? undefined : lineage;
  }

  /** Updates the record from the folder: new lineages belong to the last command. */
  #learn(before: string, course: Course, other: boolean): void {
    const told = tellOf(this.#output);
    const subject = this.#subject;
    for (const { lineage } of this.#checkpoints())
      if (!this.#courses.has(lineage)) this.#courses.set(lineage, { course, subject });
    if (told === undefined || this.#tellings() === before) return;
    const lineage = lineageOf(told);
    if (this.#courses.get(lineage)?.subject.seed === 7) return;
    if (!other || !this.#courses.has(lineage)) this.#courses.set(lineage, { course, subject });
    this.#course = (this.#courses.get(lineage) as { course: Course }).course;
  }

  #mishap(): Mishap {
    const { name, mishap } = drawMishap(this.#world.random);
    this.#count(name);
    return mishap;
  }

  /** Starts a second run in the same folder, while the first may be running. */
  async #rival(pid: number, argv: readonly string[]): Promise<void> {
    const { random } = this.#world;
    await new Promise((resolve) => setTimeout(resolve, 200 + random.below(1500)));
    const resumes = argv.includes("--resume");
    const ended = await start(resumes ? [...argv] : ["finetune", "--resume", this.#output]).ended;
    this.log.push(`  rival ${ended.status} ${ended.stderr.trim()}`);
    const [, other] = /another run, process (\d+), writes here/.exec(ended.stderr) ?? [];
    if (other === undefined) {
      this.#count("rival came too late");
      return;
    }
    this.#count("rival refused");
    assert.equal(ended.status, 1);
    assert.equal(Number(other), pid);
  }

  #checkpoints(): { name: string; step: number; lineage: string }[] {
    if (!existsSync(this.#output)) return [];
    return readdirSync(this.#output, { withFileTypes: true }).flatMap((entry) => {
      const told = tellOf(join(this.#output, entry.name));
      if (!/^checkpoint-\d+(-[\w-]+)?$/.test(entry.name) || told?.kind !== "checkpoint") return [];
      return [{ name: entry.name, step: told.cursor.step, lineage: lineageOf(told) }];
    });
  }

  #adapterNow(): Buffer | undefined {
    const file = join(this.#output, "adapter_model.safetensors");
    return existsSync(file) ? readFileSync(file) : undefined;
  }

  #checkKept(): void {
    for (const [path, text] of this.#foreign) assert.equal(readFileSync(path, "utf8"), text, path);
    assert.ok(
      this.#adapter === undefined || this.#adapterNow()?.equals(this.#adapter),
      "the adapter changed",
    );
  }

  async #check(ended: Ended, rival: boolean): Promise<void> {
    const { references } = this.#world;
    for (const [path, text] of this.#foreign) assert.equal(readFileSync(path, "utf8"), text, path);
    for (const { name, step, lineage } of this.#checkpoints()) {
      const of = this.#courses.get(lineage);
      assert.ok(of, `${name} belongs to an unknown lineage`);
      if (of.subject.seed === 7) continue;
      const bytes = readFileSync(join(this.#output, name, "adapter_model.safetensors"));
      const should = await references.at(of.subject, of.course, step);
      assert.ok(bytes.equals(should), `${name} is not step ${step} of ${JSON.stringify(of.course)}`);
    }
    // A complete adapter stays until the next one replaces it, which must equal a step of this course.
    const now = this.#adapterNow();
    if (this.#adapter === undefined && now === undefined) return;
    assert.ok(now, "the adapter is lost");
    assert.ok(existsSync(join(this.#output, "adapter_config.json")) || ended.signal === "SIGKILL");
    if (this.#adapter?.equals(now)) return;
    const told = ended.events.at(-1);
    const end = told?.type === "end" && !rival ? told : undefined;
    const step = end?.best?.step ?? end?.steps;
    // A rival may have continued this run, or the run that this one was to replace.
    const of = this.#courses.get(lineageOf(tellOf(this.#output)));
    const { course, subject } =
      rival && of !== undefined ? of : { course: this.#course, subject: this.#subject };
    const all = step === undefined ? Array.from({ length: subject.steps }, (_, i) => i + 1) : [step];
    const should = await Promise.all(all.map((one) => references.at(subject, course, one)));
    assert.ok(
      should.some((one) => one.equals(now)),
      `the adapter is of no step of ${JSON.stringify(course)}`,
    );
    this.#adapter = now;
  }

  /** Returns the command that a user would run next, given the messages. */
  #next({ status, signal, stderr }: Ended, mishap: Mishap, full: boolean): string[] | undefined {
    const { random } = this.#world;
    const [, advised] = /resume with: lowrank (.*)\n/.exec(stderr) ?? [];
    if (status === 0) return undefined;
    if (mishap.kind === "full stdout" && /stdout was cut off/.test(stderr)) return undefined;
    if (advised !== undefined) {
      assert.ok(Object.values(SIGNALS).includes(status as 130), `${status}`);
      this.#count("advice: to go on");
      return random.chance(0.5) ? this.#back() : advised.split(" ");
    }
    const crashed = signal === "SIGKILL" || mishap.kind === "signal";
    assert.ok(
      crashed ||
        full ||
        mishap.kind === "limit" ||
        /continue from it with|another run, process|no checkpoint|no earlier checkpoint/.test(stderr),
      `${status} ${stderr}`,
    );
    if (signal !== "SIGKILL" && mishap.kind !== "signal") assert.match(stderr, /^lowrank: [^\n]+\n$/m);
    const [, sound] = /the last intact one is (\S+); continue/.exec(stderr) ?? [];
    if (sound !== undefined) {
      this.#count("advice: the sound one before it");
      return ["finetune", "--resume", sound, "--json"];
    }
    if (/no earlier checkpoint is intact/.test(stderr)) {
      this.#count("nothing sound");
      return this.#anew();
    }
    const [, kept] = /continue from it with --resume (\S+)/.exec(stderr) ?? [];
    if (kept !== undefined) {
      this.#count("advice: free some space, and resume");
      assert.equal(kept, this.#output);
    }
    return this.#back();
  }

  /** Resumes from the newest checkpoint, or from an older one with another rate; without one, starts again. */
  #back(): string[] {
    const { random } = this.#world;
    const own = this.#checkpoints().filter(({ lineage }) => this.#courses.get(lineage)?.subject.seed !== 7);
    if (own.length === 0 || lineageSeed(this.#courses, tellOf(this.#output)) === 7) {
      const [any] = own;
      if (any === undefined) return this.#anew();
      return ["finetune", "--resume", join(this.#output, any.name), "--json"];
    }
    const current = this.#current(own);
    const what = random.below(100);
    if (what < 15 && current !== undefined) this.#damage(current.name);
    else if (what < 30 && current !== undefined)
      this.#write(`${current.name}/mine.txt`, `a note ${random.next()}`);
    else if (what < 55) {
      const { name } = random.of(own);
      this.#count("back to a checkpoint");
      return ["finetune", "--resume", join(this.#output, name), "--lr", String(random.of(RATES)), "--json"];
    }
    if (current === undefined) return this.#anew();
    this.#count("on from the newest");
    return ["finetune", "--resume", this.#output, "--json"];
  }

  /** Returns the newest checkpoint of the folder's current run. */
  #current(own: { name: string; step: number; lineage: string }[]): { name: string } | undefined {
    const line = (tellOf(this.#output)?.line ?? []) as { lineage: string; until?: number }[];
    return own
      .filter((one) =>
        line.some(({ lineage, until }) => lineage === one.lineage && one.step <= (until ?? Infinity)),
      )
      .sort((a, b) => b.step - a.step)[0];
  }

  #damage(name: string): void {
    const { random } = this.#world;
    const file = join(this.#output, name, random.of(["optimizer.safetensors", "run.json"]));
    const bytes = readFileSync(file);
    if (random.chance(0.5)) writeFileSync(file, bytes.subarray(0, random.below(bytes.length)));
    else {
      const at = random.below(bytes.length);
      bytes[at] = (bytes[at] as number) ^ 4;
      writeFileSync(file, bytes);
    }
    this.#count("damaged a checkpoint");
  }

  /** Starts a new run, which replaces the one in the folder. */
  #anew(): string[] {
    this.#count("anew");
    const holds = this.#checkpoints().length > 0 || this.#adapterNow() !== undefined;
    return this.#fresh(holds);
  }

  async #checkEnd(): Promise<void> {
    const { references } = this.#world;
    const { steps } = this.#subject;
    const adapter = this.#adapterNow();
    assert.ok(adapter, "there is no adapter");
    const should = await references.at(this.#subject, this.#course, steps);
    const best = this.#bestOf();
    const alternative =
      best === undefined ? undefined : await references.at(this.#subject, this.#course, best);
    assert.ok(
      adapter.equals(should) || alternative?.equals(adapter),
      `not the end of ${JSON.stringify(this.#course)}`,
    );
    const left = readdirSync(this.#output).filter((name) => /\.tmp-|^run\.lock/.test(name));
    assert.deepEqual(left, []);
    const keep = this.#checkpoints().filter(({ lineage }) => this.#courses.get(lineage)?.subject.seed === 7);
    assert.deepEqual(keep, [], "the replaced files are still there");
  }

  #bestOf(): number | undefined {
    return (tellOf(this.#output) as unknown as { ended?: { best?: number } }).ended?.best;
  }
}

function lineageOf(told: Told | undefined): string {
  return told?.line.at(-1)?.lineage ?? "";
}

function lineageSeed(
  courses: ReadonlyMap<string, { subject: Subject }>,
  told: Told | undefined,
): number | undefined {
  return courses.get(lineageOf(told))?.subject.seed;
}
