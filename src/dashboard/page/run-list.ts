/** The table of runs, with a checkbox for each run to show it. */
import { element, section } from "./element.js";
import { figure } from "./figures.js";
import type { ListedRun } from "./source.js";

const HEADINGS = ["run", "state", "model", "rank", "learning rate", "steps", "loss", "held out", "started"];

export class RunList {
  readonly #made = section("Runs", "runs");
  readonly section = this.#made.section;
  readonly #body = element("tbody");
  readonly #onShow: (names: string[]) => void;
  #seen = "";

  /** `onShow` is called with the names of the runs to show. */
  constructor(onShow: (names: string[]) => void) {
    this.#onShow = onShow;
    const heads = HEADINGS.map((heading) => element("th", { scope: "col" }, heading));
    const head = element("thead", {}, element("tr", {}, ...heads));
    // A table wider than the page scrolls by itself; it is focusable, so that keys can scroll it.
    const scrolled = element("div", {
      class: "scrolled",
      tabindex: "0",
      role: "region",
      "aria-label": "Runs",
    });
    scrolled.append(element("table", {}, head, this.#body));
    this.#made.body.append(scrolled);
  }

  draw(runs: readonly ListedRun[], shown: readonly string[], colorOf: (name: string) => string): void {
    this.section.hidden = runs.length < 2;
    const seen = JSON.stringify([runs, shown]);
    if (seen === this.#seen) return;
    this.#seen = seen;
    const focused = (document.activeElement as HTMLInputElement | null)?.value;
    this.#body.replaceChildren(
      ...runs.map((run) => this.#row(run, shown.includes(run.name), colorOf(run.name))),
    );
    if (focused === undefined) return;
    for (const box of this.#body.querySelectorAll("input")) if (box.value === focused) box.focus();
  }

  #row(run: ListedRun, shown: boolean, color: string): HTMLElement {
    const box = element("input", { type: "checkbox", value: run.name });
    box.checked = shown;
    box.addEventListener("change", () => this.#onShow(this.#checked()));
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = color;
    const name = element("th", { scope: "row" }, element("label", {}, box, swatch, run.name));
    const number = (value: number | null): string => (value === null ? "–" : figure(value));
    const cells = [
      run.state,
      run.model?.split(/[\\/]/).at(-1) ?? "–",
      number(run.rank),
      number(run.learningRate),
      `${run.step}/${run.steps ?? "–"}`,
      number(run.loss),
      number(run.evalLoss),
      new Date(run.started).toLocaleString(),
    ];
    const row = element("tr", {}, name, ...cells.map((cell) => element("td", {}, cell)));
    if (run.message !== null) row.title = run.message;
    return row;
  }

  #checked(): string[] {
    return [...this.#body.querySelectorAll("input")].filter((box) => box.checked).map((box) => box.value);
  }
}
