/** The charts: the metrics of the shown runs over their steps, one colour per run. */
import uPlot from "uplot";

import { createElement } from "./element.js";
import { formatBytes, formatFigure } from "./figures.js";
import type { MetricName, RunHistory } from "./history.js";

/** A run that is shown. */
export interface ChartedRun {
  name: string;
  color: string;
  history: RunHistory;
}

const HEIGHT = 220;
/** The key that synchronises the cursors of all charts. */
const SYNC = "steps";

interface Kind {
  metric: MetricName;
  title: string;
  format: (value: number) => string;
  /** Distances between the marks of the axis; by default round decimal numbers. */
  marks?: number[] | undefined;
}

/** Marks for bytes, which are powers of two. */
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);

const KINDS: readonly Kind[] = [
  { metric: "loss", title: "Loss", format: formatFigure },
  { metric: "learningRate", title: "Learning rate", format: formatFigure },
  { metric: "gradNorm", title: "Gradient norm", format: formatFigure },
  { metric: "tokensPerSecond", title: "Tokens per second", format: formatFigure },
  { metric: "memoryBytes", title: "Memory", format: formatBytes, marks: POWERS },
];

/** The steps, then for each run the mean, the maximum and the minimum, and for losses the held-out loss. */
type Columns = [number[], ...(number | null)[][]];

/** Keyboard actions in one chart that apply to all. */
interface Followers {
  /** Moves the cursor to a step. */
  point: (step: number) => void;
  /** Shows these steps; undefined shows all. */
  zoom: (range: [number, number] | undefined) => void;
}

class Chart {
  readonly figure: HTMLElement;
  readonly #kind: Kind;
  readonly #plot = createElement("div", { class: "plot" });
  readonly #readout = createElement("output", { "aria-live": "polite" });
  #chart: uPlot | undefined;
  #runs: readonly ChartedRun[] = [];
  #columns: Columns = [[]];

  constructor(kind: Kind, all: Followers) {
    this.#kind = kind;
    const keys = "arrow keys move along the steps, + and − zoom, 0 shows all";
    const label = `${kind.title}, a chart: ${keys}`;
    this.#plot.tabIndex = 0;
    this.#plot.setAttribute("role", "group");
    this.#plot.setAttribute("aria-label", label);
    this.#plot.addEventListener("keydown", (event) => this.#handleKey(event, all));
    this.figure = createElement(
      "figure",
      { "data-metric": kind.metric },
      createElement("figcaption", {}, kind.title),
      this.#plot,
      this.#readout,
    );
  }

  get #heldOut(): boolean {
    return this.#kind.metric === "loss";
  }

  /** Draws the runs. The second argument requests a new chart, because runs or colours have changed. */
  draw(runs: readonly ChartedRun[], anew: boolean): void {
    const zoomed = this.#findVisibleRange();
    this.#runs = runs;
    this.#columns = buildColumns(runs, this.#kind.metric, this.#heldOut);
    if (anew || this.#chart === undefined) this.#make();
    else this.#chart.setData(this.#columns as uPlot.AlignedData, zoomed === undefined);
    if (zoomed !== undefined) this.#chart?.setScale("x", { min: zoomed[0], max: zoomed[1] });
    this.#showValues();
  }

  point(step: number): void {
    const chart = this.#chart;
    chart?.setCursor({ left: chart.valToPos(step, "x"), top: 10 });
  }

  zoom(range: [number, number] | undefined): void {
    const steps = this.#columns[0];
    const [min, max] = range ?? [steps[0] ?? 0, steps.at(-1) ?? 1];
    this.#chart?.setScale("x", { min, max });
  }

  fit(): void {
    const width = this.#plot.clientWidth;
    if (width > 0 && this.#chart?.width !== width) this.#chart?.setSize({ width, height: HEIGHT });
  }

  /** Returns the visible range of steps; undefined if all steps are visible. */
  #findVisibleRange(): [number, number] | undefined {
    const steps = this.#columns[0];
    const { min, max } = this.#chart?.scales["x"] ?? {};
    if (min === undefined || max === undefined || steps.length < 2) return undefined;
    return min > (steps[0] as number) || max < (steps.at(-1) as number) ? [min, max] : undefined;
  }

  #make(): void {
    this.#chart?.destroy();
    const look = getComputedStyle(this.#plot);
    const [ink, line] = [look.getPropertyValue("--soft"), look.getPropertyValue("--line")];
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const { format, marks } = this.#kind;
    const series: uPlot.Series[] = [{ label: "step" }];
    const bands: uPlot.Band[] = [];
    for (const { name, color } of this.#runs) {
      const first = series.length;
      const edge = { stroke: "transparent", width: 0, points: { show: false } };
      series.push(
        { label: name, stroke: color, width: 1.5, points: { show: false }, spanGaps: true },
        edge,
        edge,
      );
      bands.push({ series: [first + 1, first + 2], fill: `${color}33` });
      if (!this.#heldOut) continue;
      const points = { show: true, size: 6, fill: color, stroke: color };
      series.push({
        label: `${name}, held out`,
        stroke: color,
        width: 1,
        dash: [6, 4],
        points,
        spanGaps: true,
      });
    }
    const options: uPlot.Options = {
      width: Math.max(this.#plot.clientWidth, 200),
      height: HEIGHT,
      series,
      bands,
      scales: { x: { time: false } },
      axes: [
        {
          ...axis,
          size: 30,
          values: (_, splits) => splits.map((step) => (Number.isInteger(step) ? String(step) : "")),
        },
        { ...axis, size: 74, ...(marks && { incrs: marks }), values: (_, splits) => splits.map(format) },
      ],
      legend: { show: false },
      cursor: { sync: { key: SYNC, setSeries: false }, drag: { x: true, y: false } },
      hooks: { setCursor: [() => this.#showValues()] },
    };
    this.#chart = new uPlot(options, this.#columns as uPlot.AlignedData, this.#plot);
  }

  /** Shows the values at the cursor; without a cursor, the last value of each run. */
  #showValues(): void {
    const index = this.#chart?.cursor.idx;
    const each = this.#heldOut ? 4 : 3;
    const readValue = (column: number): number | undefined => {
      const values = this.#columns[column] ?? [];
      return (index == null ? values.findLast((value) => value !== null) : values[index]) ?? undefined;
    };
    const labels = this.#runs.flatMap(({ name, color }, i) => {
      const value = readValue(1 + i * each);
      const heldOut = this.#heldOut ? readValue(4 + i * each) : undefined;
      const texts = [
        ...(value === undefined ? [] : [this.#kind.format(value)]),
        ...(heldOut === undefined ? [] : [`held out ${this.#kind.format(heldOut)}`]),
      ];
      if (texts.length === 0) return [];
      const swatch = createElement("span", { class: "swatch" });
      swatch.style.background = color;
      const label = this.#runs.length > 1 ? `${name}: ` : "";
      return [createElement("span", {}, swatch, `${label}${texts.join(", ")}`)];
    });
    const where = index == null ? "last" : `step ${this.#columns[0][index] ?? 0}`;
    this.#readout.replaceChildren(
      createElement("b", {}, where),
      ...(labels.length === 0 ? ["nothing yet"] : labels),
    );
  }

  #handleKey(event: KeyboardEvent, { point, zoom }: Followers): void {
    const [chart, steps] = [this.#chart, this.#columns[0]];
    if (chart === undefined || steps.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = steps.length - 1;
    const index = chart.cursor.idx ?? last;
    const stride = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: index - stride, ArrowRight: index + stride, Home: 0, End: last }[event.key];
    if (to !== undefined) {
      point(steps[Math.min(Math.max(to, 0), last)] as number);
    } else if (event.key === "+" || event.key === "-") {
      const { min = 0, max = 1 } = chart.scales["x"] ?? {};
      const half = ((max - min) / 2) * (event.key === "+" ? 0.5 : 2);
      const center = steps[index] as number;
      const [low, high] = [
        Math.max(center - half, steps[0] as number),
        Math.min(center + half, steps[last] as number),
      ];
      if (high - low >= 1)
        zoom(low <= (steps[0] as number) && high >= (steps[last] as number) ? undefined : [low, high]);
    } else if (event.key === "0" || event.key === "Escape") zoom(undefined);
    else return;
    event.preventDefault();
  }
}

/** All charts; they are drawn together. */
export class Charts {
  readonly grid = createElement("div", { class: "charts" });
  readonly #charts: Chart[];
  #drawnKey = "";

  constructor() {
    const all: Followers = {
      point: (step) => this.#charts.forEach((chart) => chart.point(step)),
      zoom: (range) => this.#charts.forEach((chart) => chart.zoom(range)),
    };
    this.#charts = KINDS.map((kind) => new Chart(kind, all));
    this.grid.append(...this.#charts.map((chart) => chart.figure));
    new ResizeObserver(() => {
      for (const chart of this.#charts) chart.fit();
    }).observe(this.grid);
  }

  draw(runs: readonly ChartedRun[], theme: string): void {
    const known = JSON.stringify([theme, runs.map(({ name, color }) => [name, color])]);
    for (const chart of this.#charts) chart.draw(runs, known !== this.#drawnKey);
    this.#drawnKey = known;
  }
}

function buildColumns(runs: readonly ChartedRun[], metric: MetricName, heldOut: boolean): Columns {
  const width = Math.max(1, ...runs.map(({ history }) => history.width));
  const length = Math.max(0, ...runs.map(({ history }) => Math.ceil(findLastStep(history) / width))) + 1;
  const steps = Array.from({ length }, (_, i) => i * width);
  const columns: Columns = [steps];
  for (const { history } of runs) {
    const { mean, greatest, least } = history.readBuckets(metric, width);
    for (const values of [mean, greatest, least]) columns.push(pad(values, length));
    if (!heldOut) continue;
    const heldOutLosses = Array.from<number | null>({ length }).fill(null);
    for (const { step, loss } of history.evals) heldOutLosses[Math.ceil(step / width)] = loss;
    columns.push(heldOutLosses);
  }
  return columns;
}

function findLastStep({ step, evals }: RunHistory): number {
  return Math.max(step, evals.at(-1)?.step ?? 0);
}

function pad(values: Float64Array, length: number): (number | null)[] {
  return Array.from({ length }, (_, i) => {
    const value = values[i];
    return value === undefined || Number.isNaN(value) ? null : value;
  });
}
