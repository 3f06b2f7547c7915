/** The page: draws the runs of a source into an element. */
import { Charts, type ChartedRun } from "./charts.js";
import { createElement, createSection } from "./element.js";
import { formatDuration } from "./figures.js";
import { RunHistory } from "./history.js";
import { Panels } from "./panels.js";
import { RunList } from "./run-list.js";
import type { Connection, ListedRun, Listing, RunsSource } from "./source.js";

/** The minimum milliseconds between two drawings. */
const REDRAW_MS = 250;
/** Milliseconds between two requests for the list of runs. */
const LIST_MS = 3000;
/** Consecutive unanswered requests after which the process that served the page counts as gone. */
const GONE_AFTER = 2;
/** The number of runs that are shown initially. */
const AT_FIRST = 4;
/** The maximum number of runs that are shown. */
const AT_MOST = 8;
const COLORS = ["#2f7ed8", "#e07b00", "#1a9850", "#c0392b", "#8e44ad", "#008b8b", "#b8860b", "#d6579b"];

class Page {
  readonly #source: RunsSource;
  readonly #histories = new Map<string, RunHistory>();
  readonly #charts = new Charts();
  readonly #panels = new Panels();
  readonly #list = new RunList((shown) => this.#show(shown));
  readonly #title = createElement("h1", {}, "lowrank");
  readonly #state = createElement("p", { class: "state", role: "status" });
  readonly #progress = createElement("progress", { "aria-label": "steps done", max: "1", value: "0" });
  readonly #stop = createElement("button", { type: "button", class: "stop" }, "Stop");
  readonly #pause = createElement("button", { type: "button", class: "pause" }, "Pause");
  readonly #theme = createElement("button", { type: "button" }, "Switch theme");
  readonly #choice = createElement("select", { id: "details" });
  readonly #details = createElement(
    "p",
    { class: "details" },
    createElement("label", { for: "details" }, "Details of "),
    this.#choice,
  );
  readonly #notices = createElement("ul", { class: "notices", role: "alert" });
  #listing: Listing | undefined;
  #shownNames: string[] = [];
  #unwatch: () => void = () => {};
  #connection: Connection = "connected";
  #failure: string | undefined;
  /** The state that was requested and that the run has not reported yet. */
  #requestedState: "paused" | "running" | undefined;
  /** Consecutive unanswered requests. */
  #unanswered = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastDrawn = 0;

  constructor(root: HTMLElement, source: RunsSource) {
    this.#source = source;
    const header = createElement(
      "header",
      {},
      this.#title,
      this.#state,
      this.#progress,
      createElement("div", { class: "buttons" }, this.#pause, this.#stop, this.#theme),
    );
    const charts = createSection("Metrics by step", "over-steps");
    charts.body.append(this.#charts.grid);
    const main = createElement(
      "main",
      {},
      this.#notices,
      this.#list.section,
      charts.section,
      this.#details,
      ...this.#panels.sections,
    );
    root.replaceChildren(header, main);
    for (const each of [this.#notices, ...this.#panels.sections]) each.hidden = true;
    this.#stop.addEventListener("click", () => void this.#requestStop());
    this.#pause.addEventListener("click", () => void this.#togglePause());
    this.#theme.addEventListener("click", () => this.#switchTheme());
    this.#choice.addEventListener("change", () => this.#draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    document.addEventListener("visibilitychange", () => this.#scheduleDraw());
    void this.#requestList();
  }

  /** Requests the list of runs, repeatedly. */
  async #requestList(): Promise<void> {
    try {
      if (!document.hidden || this.#listing === undefined) {
        const listing = await this.#source.list();
        const first = this.#listing === undefined || this.#shownNames.length === 0;
        this.#listing = listing;
        this.#failure = undefined;
        this.#unanswered = 0;
        if (first && listing.runs.length > 0) {
          const newest = listing.runs.slice(-AT_FIRST).map(({ name }) => name);
          this.#show(newest);
        }
        this.#scheduleDraw();
      }
    } catch (error) {
      // fetch throws a TypeError if no process listens at the address.
      this.#unanswered = error instanceof TypeError ? this.#unanswered + 1 : 0;
      this.#failure = this.#isOver()
        ? undefined
        : `cannot load the list of runs: ${(error as Error).message}`;
      this.#scheduleDraw();
    }
    setTimeout(() => void this.#requestList(), LIST_MS);
  }

  /** Shows these runs and no others. */
  #show(names: string[]): void {
    this.#shownNames = names.slice(-AT_MOST);
    for (const name of this.#histories.keys())
      if (!this.#shownNames.includes(name)) this.#histories.delete(name);
    for (const name of this.#shownNames) this.#histories.set(name, new RunHistory());
    this.#unwatch();
    this.#unwatch = () => {};
    if (this.#shownNames.length > 0) {
      this.#unwatch = this.#source.watch(
        this.#shownNames,
        (run, events, begin) => {
          if (begin) this.#histories.set(run, new RunHistory());
          const history = this.#histories.get(run);
          for (const event of events) history?.take(event);
          this.#scheduleDraw();
        },
        (connection) => {
          this.#connection = connection;
          this.#scheduleDraw();
        },
      );
    }
    const before = this.#choice.value;
    this.#choice.replaceChildren(
      ...this.#shownNames.map((name) => createElement("option", { value: name }, name)),
    );
    this.#choice.value = this.#shownNames.includes(before) ? before : (this.#shownNames.at(-1) ?? "");
    this.#details.hidden = this.#shownNames.length < 2;
    this.#scheduleDraw();
  }

  /** Schedules a drawing, one for all changes until then. A hidden page is not drawn. */
  #scheduleDraw(): void {
    if (this.#timer !== undefined || document.hidden) return;
    const wait = Math.max(0, this.#lastDrawn + REDRAW_MS - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#draw();
    }, wait);
  }

  #draw(): void {
    this.#lastDrawn = performance.now();
    const listing = this.#listing;
    if (listing === undefined) return;
    document.title = `${listing.title} – lowrank`;
    this.#title.textContent = listing.title;
    const charted: ChartedRun[] = this.#shownNames.map((name) => ({
      name,
      color: this.#selectColor(name),
      history: this.#histories.get(name) ?? new RunHistory(),
    }));
    this.#list.draw(listing.runs, this.#shownNames, (name) => this.#selectColor(name));
    this.#charts.draw(charted, document.documentElement.dataset["theme"] ?? String(prefersDark()));
    const history = this.#histories.get(this.#choice.value);
    if (history !== undefined) this.#panels.draw(history);
    this.#showState(history);
    this.#showNotices(listing);
  }

  /** Returns the colour of a run, which does not depend on the other runs shown. */
  #selectColor(name: string): string {
    const place = this.#listing?.runs.findIndex((run) => run.name === name) ?? 0;
    return COLORS[Math.max(place, 0) % COLORS.length] as string;
  }

  #showState(history: RunHistory | undefined): void {
    const run = this.#listing?.runs.find(({ name }) => name === this.#choice.value);
    // The run's events may be newer than the list.
    const listed = this.#isGone() ? "gone" : (run?.state ?? "");
    const going = listed === "running" || listed === "paused";
    const current = going && history !== undefined ? (history.paused ? "paused" : "running") : listed;
    const state = history?.end === undefined ? current : classifyEnd(history.end);
    const step = Math.max(history?.step ?? 0, run?.step ?? 0);
    const steps = history?.steps ?? run?.steps ?? undefined;
    const left =
      state === "running" && history?.etaSeconds !== undefined
        ? `, ${formatDuration(history.etaSeconds)} left`
        : "";
    const done = steps === undefined ? "" : `, step ${step} of ${steps}`;
    const many = this.#shownNames.length > 1 ? `${this.#choice.value}: ` : "";
    this.#state.textContent = `${many}${state}${done}${left}`;
    this.#state.dataset["state"] = state;
    this.#progress.value = steps === undefined ? 0 : step / steps;
    const goes = state === "running" || state === "paused";
    this.#stop.hidden = this.#listing?.stops !== true || !goes;
    this.#pause.hidden = this.#listing?.pauses !== true || !goes;
    if (this.#requestedState === undefined || this.#requestedState === state) {
      this.#requestedState = undefined;
      this.#pause.disabled = false;
      this.#pause.textContent = state === "paused" ? "Resume" : "Pause";
    }
  }

  #showNotices({ notices, runs }: Listing): void {
    const lost =
      this.#connection !== "lost"
        ? []
        : this.#isOver()
          ? ["The run has ended; this page no longer updates."]
          : this.#isGone()
            ? [
                `The run's process is gone: it was killed, or the machine was restarted.${describeResume(runs[0], this.#histories)}`,
              ]
            : ["The connection is lost and is tried again."];
    const interrupted = runs
      .filter((run) => run.state === "interrupted")
      .map((run) => `${run.name}: the run's process is gone.${describeResume(run, this.#histories)}`);
    const damaged = runs
      .filter((run) => run.damaged > 0)
      .map((run) => `${run.name}: ${run.damaged} damaged lines were skipped`);
    const all = [
      ...lost,
      ...(this.#failure === undefined || this.#isGone() ? [] : [this.#failure]),
      ...interrupted,
      ...notices,
      ...damaged,
    ];
    const text = all.join("\n");
    if (this.#notices.dataset["text"] === text) return;
    this.#notices.dataset["text"] = text;
    this.#notices.hidden = all.length === 0;
    this.#notices.replaceChildren(...all.map((notice) => createElement("li", {}, notice)));
  }

  /** Whether the process that trains and serves this page has stopped responding. */
  #isGone(): boolean {
    const { stops = false } = this.#listing ?? {};
    return stops && this.#connection === "lost" && this.#unanswered >= GONE_AFTER && !this.#isOver();
  }

  /** Whether all shown runs have ended. */
  #isOver(): boolean {
    return (
      this.#shownNames.length > 0 &&
      this.#shownNames.every((name) => this.#histories.get(name)?.end !== undefined)
    );
  }

  async #togglePause(): Promise<void> {
    const paused = this.#state.dataset["state"] === "paused";
    this.#pause.disabled = true;
    this.#requestedState = paused ? "running" : "paused";
    try {
      await (paused ? this.#source.resume?.() : this.#source.pause?.());
      if (this.#requestedState !== undefined) this.#pause.textContent = paused ? "Resuming …" : "Pausing …";
    } catch (error) {
      this.#requestedState = undefined;
      this.#failure = `the run cannot be ${paused ? "resumed" : "paused"}: ${(error as Error).message}`;
    }
    this.#scheduleDraw();
  }

  async #requestStop(): Promise<void> {
    if (
      !confirm(
        "Stop the run? It finishes the current step and saves a checkpoint, from which it can be resumed.",
      )
    )
      return;
    this.#stop.disabled = true;
    try {
      await this.#source.stop();
      this.#stop.textContent = "Stopping …";
    } catch (error) {
      this.#stop.disabled = false;
      this.#failure = `the run cannot be stopped: ${(error as Error).message}`;
      this.#scheduleDraw();
    }
  }

  #switchTheme(): void {
    const root = document.documentElement;
    const dark = root.dataset["theme"] === undefined ? prefersDark() : root.dataset["theme"] === "dark";
    root.dataset["theme"] = dark ? "light" : "dark";
    this.#draw();
  }
}

function prefersDark(): boolean {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Describes how to continue a run whose process is gone. The page may lack the process's last events. */
function describeResume(run: ListedRun | undefined, histories: ReadonlyMap<string, RunHistory>): string {
  if (run === undefined) return "";
  const history = histories.get(run.name);
  // The list has no folder yet for a run that it saw only at its beginning.
  const folder = run.folder || history?.start?.["output"];
  if (typeof folder !== "string" || folder === "") return "";
  const saved = history?.checkpoint ?? run.checkpoint ?? undefined;
  const from =
    saved === undefined ? "If it saved a checkpoint, continue it" : `Continue it from step ${saved}`;
  return ` ${from} with: lowrank finetune --resume ${folder}`;
}

function classifyEnd({ type, stopped }: { type: string; [field: string]: unknown }): string {
  if (type === "failed") return "failed";
  return stopped === true ? "stopped" : "ended";
}

/** Draws a page about the runs of `source` into `root`. */
export function mount(root: HTMLElement, source: RunsSource): void {
  void new Page(root, source);
}
