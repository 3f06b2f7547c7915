/** The page's data of a run, which is bounded for runs of any length. */
import type { RunEvent } from "./source.js";

/** The metrics that are charted, by their fields in a step's event. */
export const METRICS = ["loss", "learningRate", "gradNorm", "tokensPerSecond", "memoryBytes"] as const;
export type MetricName = (typeof METRICS)[number];

/** The number of buckets. In a run with more steps, a bucket covers two steps, four, … */
const BUCKETS = 4096;
/** The maximum number of evaluations, samples and messages. */
const MOST_EVALS = 2048;
const MOST_SAMPLES = 256;
const MOST_MESSAGES = 200;

/** The minimum, maximum and mean of each bucket's steps; NaN for empty buckets. */
export interface Buckets {
  least: Float64Array;
  greatest: Float64Array;
  mean: Float64Array;
}

/** A text before and after training, at an evaluation. */
export interface Sample {
  prompt: string;
  base: string;
  tuned: string;
}

class Metric {
  readonly least = new Float64Array(BUCKETS).fill(NaN);
  readonly greatest = new Float64Array(BUCKETS).fill(NaN);
  readonly sum = new Float64Array(BUCKETS);
  readonly count = new Float64Array(BUCKETS);

  add(bucket: number, value: number): void {
    this.#put(bucket, value, value, value, 1);
  }

  /** Halves the number of buckets: 2k − 1 and 2k become k. */
  coarsen(): void {
    for (let from = 1; from < BUCKETS; from++) {
      const [least, greatest, sum, count] = [this.least, this.greatest, this.sum, this.count].map(
        (values) => values[from] as number,
      ) as [number, number, number, number];
      this.#clear(from);
      if (count > 0) this.#put(Math.ceil(from / 2), least, greatest, sum, count);
    }
  }

  #put(bucket: number, least: number, greatest: number, sum: number, count: number): void {
    const had = (this.count[bucket] as number) > 0;
    this.least[bucket] = had ? Math.min(this.least[bucket] as number, least) : least;
    this.greatest[bucket] = had ? Math.max(this.greatest[bucket] as number, greatest) : greatest;
    this.sum[bucket] = (this.sum[bucket] as number) + sum;
    this.count[bucket] = (this.count[bucket] as number) + count;
  }

  #clear(bucket: number): void {
    this.least[bucket] = this.greatest[bucket] = NaN;
    this.sum[bucket] = this.count[bucket] = 0;
  }
}

/** A process of a run: its place from the start event, and its figures of the newest step. */
export interface RankRow {
  host: string;
  pid: number;
  devices: string;
  rows: number;
  tokensPerSecond: number | undefined;
  memoryBytes: number | undefined;
}

export class RunHistory {
  /** Steps per bucket. Bucket 0 is before the first step; bucket k ends with step k · width. */
  width = 1;
  /** The last reported step. */
  step = 0;
  steps: number | undefined;
  etaSeconds: number | undefined;
  /** The latest start event of the run. */
  start: RunEvent | undefined;
  /** The step of the newest checkpoint. */
  checkpoint: number | undefined;
  /** The event that ended the run. */
  end: RunEvent | undefined;
  /** Whether the run is paused. */
  paused = false;
  evals: { step: number; loss: number; event: RunEvent }[] = [];
  samples: { step: number; texts: Sample[] }[] = [];
  /** The processes that train together, in rank order; empty for one process. */
  ranks: readonly RankRow[] = [];
  /** Training rows: parts of text, each trained or not. */
  rows: { text: string; trained: boolean }[][] = [];
  messages: { at: number | undefined; text: string }[] = [];
  readonly #metrics = new Map<MetricName, Metric>(METRICS.map((name) => [name, new Metric()]));

  /** Returns buckets of `width` steps, which is this history's width times a power of two. */
  readBuckets(name: MetricName, width: number): Buckets {
    const metric = this.#metrics.get(name) as Metric;
    const factor = width / this.width;
    const length = Math.ceil(this.step / width) + 1;
    const buckets = {
      least: createFilled(length),
      greatest: createFilled(length),
      mean: createFilled(length),
    };
    const [sum, count] = [new Float64Array(length), new Float64Array(length)];
    for (let from = 0; from <= Math.ceil(this.step / this.width); from++) {
      const n = metric.count[from] as number;
      if (n === 0) continue;
      const to = Math.ceil(from / factor);
      const [least, greatest] = [metric.least[from] as number, metric.greatest[from] as number];
      buckets.least[to] = count[to] === 0 ? least : Math.min(buckets.least[to] as number, least);
      buckets.greatest[to] = count[to] === 0 ? greatest : Math.max(buckets.greatest[to] as number, greatest);
      sum[to] = (sum[to] as number) + (metric.sum[from] as number);
      count[to] = (count[to] as number) + n;
    }
    for (let i = 0; i < length; i++)
      if (count[i] !== 0) buckets.mean[i] = (sum[i] as number) / (count[i] as number);
    return buckets;
  }

  take(event: RunEvent): void {
    switch (event.type) {
      case "start":
        this.start = event;
        this.end = undefined;
        this.paused = false;
        this.steps = readNumber(event, "steps");
        this.ranks = readRanks(event);
        this.#addNotice(event, describeResume(event));
        break;
      case "step":
        this.#addStep(event);
        break;
      case "paused":
        this.paused = true;
        this.#addNotice(event, `paused after step ${String(event["step"])}`);
        break;
      case "resumed":
        this.paused = false;
        this.#addNotice(event, `resumed at step ${String(event["step"])}`);
        break;
      case "eval":
        this.#addEvaluation(event);
        break;
      case "sample":
        this.samples = this.samples.filter(({ step }) => step !== event["step"]).slice(1 - MOST_SAMPLES);
        this.samples.push({
          step: readNumber(event, "step") ?? 0,
          texts: (event["texts"] ?? []) as Sample[],
        });
        break;
      case "rows":
        this.rows = (event["rows"] ?? []) as RunHistory["rows"];
        break;
      case "checkpoint":
        this.checkpoint = readNumber(event, "step");
        this.#addNotice(event, `step ${String(event["step"])}: saved ${String(event["path"])}`);
        break;
      case "warning":
        this.#addNotice(event, `warning: ${String(event["message"])}`);
        break;
      case "end":
      case "failed":
        this.end = event;
        this.#addNotice(event, describeEnd(event));
        break;
    }
  }

  #addStep(event: RunEvent): void {
    const step = readNumber(event, "step");
    if (step === undefined || step < 1) return;
    while (Math.ceil(step / this.width) >= BUCKETS) {
      this.width *= 2;
      for (const metric of this.#metrics.values()) metric.coarsen();
    }
    this.step = Math.max(this.step, step);
    this.steps = readNumber(event, "steps") ?? this.steps;
    this.etaSeconds = readNumber(event, "etaSeconds");
    const figures = listObjects(event["ranks"]);
    if (figures.length > 0)
      this.ranks = this.ranks.map((rank, i) => ({
        ...rank,
        tokensPerSecond: readNumber(figures[i], "tokensPerSecond"),
        memoryBytes: readNumber(figures[i], "memoryBytes"),
      }));
    const bucket = Math.ceil(step / this.width);
    for (const [name, metric] of this.#metrics) {
      const value = readNumber(event, name);
      if (value !== undefined) metric.add(bucket, value);
    }
  }

  #addEvaluation(event: RunEvent): void {
    const [step, loss] = [readNumber(event, "step"), readNumber(event, "loss")];
    if (step === undefined || loss === undefined) return;
    this.evals = this.evals.filter((evaluation) => evaluation.step !== step);
    this.evals.push({ step, loss, event });
    // Beyond the maximum, every second evaluation is dropped.
    if (this.evals.length > MOST_EVALS) this.evals = this.evals.filter((_, i) => i % 2 === 0);
  }

  #addNotice({ at }: RunEvent, text: string): void {
    if (text === "") return;
    this.messages.push({ at, text });
    if (this.messages.length > MOST_MESSAGES) this.messages.shift();
  }
}

function createFilled(length: number): Float64Array {
  return new Float64Array(length).fill(NaN);
}

/** Returns the ranks of a start event. */
function readRanks(event: RunEvent): RankRow[] {
  return listObjects(event["ranks"]).map((rank) => ({
    host: String(rank["host"] ?? ""),
    pid: readNumber(rank, "pid") ?? 0,
    devices: Array.isArray(rank["devices"]) ? rank["devices"].join(", ") : "",
    rows: readNumber(rank, "rows") ?? 0,
    tokensPerSecond: undefined,
    memoryBytes: undefined,
  }));
}

/** Returns the elements of a list of objects; none for any other value. */
function listObjects(value: unknown): Record<string, unknown>[] {
  if (!Array.isArray(value)) return [];
  return value.map((item) =>
    typeof item === "object" && item !== null ? (item as Record<string, unknown>) : {},
  );
}

/** Returns a finite number of an event; JSON stores null for any other. */
function readNumber(event: Readonly<Record<string, unknown>> | undefined, field: string): number | undefined {
  const value = event?.[field];
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

function describeResume(event: RunEvent): string {
  const from = readNumber(event, "resumedFrom") ?? 0;
  return from > 0 ? `resumed from step ${from}` : "";
}

function describeEnd(event: RunEvent): string {
  if (event.type === "failed") return `failed: ${String(event["message"])}`;
  return `${event["stopped"] === true ? "stopped" : "done"} at step ${String(event["steps"])}`;
}
