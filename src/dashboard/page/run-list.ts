/** The table of runs, with a checkbox for each run to show it. */
import { createElement, createSection } from "./element.js";
import { formatFigure } from "./figures.js";
import type { ListedRun } from "./source.js";

const HEADINGS = ["run", "state", "model", "rank", "learning rate", "steps", "loss", "held out", "started"];

export class RunList {
  readonly #panel = createSection("Runs", "runs");
  readonly section = this.#panel.section;
  readonly #body = createElement("tbody");
  readonly #onShow: (names: string[]) => void;
  #drawnKey = "";

  /** `onShow` is called with the names of the runs to show. */
  constructor(onShow: (names: string[]) => void) {
    this.#onShow = onShow;
    const heads = HEADINGS.map((heading) => createElement("th", { scope: "col" }, heading));
    const head = createElement("thead", {}, createElement("tr", {}, ...heads));
    // A table wider than the page scrolls by itself; it is focusable, so that keys can scroll it.
    const scrolled = createElement("div", {
      class: "scrolled",
      tabindex: "0",
      role: "region",
      "aria-label": "Runs",
    });
    scrolled.append(createElement("table", {}, head, this.#body));
    this.#panel.body.append(scrolled);
  }

  draw(runs: readonly ListedRun[], shown: readonly string[], colorOf: (name: string) => string): void {
    this.section.hidden = runs.length < 2;
    const seen = JSON.stringify([runs, shown]);
    if (seen === this.#drawnKey) return;
    this.#drawnKey = seen;
    const focused = (document.activeElement as HTMLInputElement | null)?.value;
    this.#body.replaceChildren(
      ...runs.map((run) => this.#createRow(run, shown.includes(run.name), colorOf(run.name))),
    );
    if (focused === undefined) return;
    for (const box of this.#body.querySelectorAll("input")) if (box.value === focused) box.focus();
  }

  #createRow(run: ListedRun, shown: boolean, color: string): HTMLElement {
    const box = createElement("input", { type: "checkbox", value: run.name });
    box.checked = shown;
    box.addEventListener("change", () => this.#onShow(this.#listChecked()));
    const swatch = createElement("span", { class: "swatch" });
    swatch.style.background = color;
    const name = createElement("th", { scope: "row" }, createElement("label", {}, box, swatch, run.name));
    const formatNumber = (value: number | null): string => (value === null ? "–" : formatFigure(value));
    const cells = [
      run.state,
      run.model?.split(/[\\/]/).at(-1) ?? "–",
      formatNumber(run.rank),
      formatNumber(run.learningRate),
      `${run.step}/${run.steps ?? "–"}`,
      formatNumber(run.loss),
      formatNumber(run.evalLoss),
      new Date(run.started).toLocaleString(),
    ];
    const row = createElement("tr", {}, name, ...cells.map((cell) => createElement("td", {}, cell)));
    if (run.message !== null) row.title = run.message;
    return row;
  }

  #listChecked(): string[] {
    return [...this.#body.querySelectorAll("input")].filter((box) => box.checked).map((box) => box.value);
  }
}
