/** The panels of a run: ranks, samples, training rows, settings and messages. */
import { createElement, createSection } from "./element.js";
import { formatBytes, formatFigure } from "./figures.js";
import type { RankRow, RunHistory } from "./history.js";

/** Fields of the start event that the settings omit. */
const LEFT_OUT = new Set(["type", "at", "data", "ranks"]);

const RANK_HEADINGS = [
  "rank",
  "machine",
  "process",
  "devices",
  "rows of a step",
  "tokens per second",
  "memory",
];

/** Converts an option's name to words: maxLength becomes max length. */
function toWords(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

function formatSetting(value: unknown): string {
  if (typeof value === "number")
    return Number.isInteger(value) ? value.toLocaleString("en-US") : formatFigure(value);
  if (Array.isArray(value)) return value.map(formatSetting).join(", ");
  if (typeof value === "object" && value !== null) return JSON.stringify(value);
  return value === "" ? "–" : String(value);
}

class Ranks {
  readonly #panel = createSection("Ranks", "ranks");
  readonly section = this.#panel.section;
  readonly #body = createElement("tbody");
  #drawnRanks: readonly RankRow[] | undefined;

  constructor() {
    const heads = RANK_HEADINGS.map((heading) => createElement("th", { scope: "col" }, heading));
    const table = createElement(
      "table",
      {},
      createElement("thead", {}, createElement("tr", {}, ...heads)),
      this.#body,
    );
    // Focusable, so that keys can scroll a table that is wider than the page.
    const region = { class: "scrolled", tabindex: "0", role: "region", "aria-label": "Ranks" };
    this.#panel.body.append(createElement("div", region, table));
  }

  draw({ ranks }: RunHistory): void {
    this.section.hidden = ranks.length === 0;
    if (ranks === this.#drawnRanks) return;
    this.#drawnRanks = ranks;
    const rows = ranks.map(({ host, pid, devices, rows: count, tokensPerSecond, memoryBytes }, rank) => {
      const cells = [
        host,
        String(pid),
        devices,
        String(count),
        tokensPerSecond === undefined ? "–" : formatFigure(Math.round(tokensPerSecond)),
        memoryBytes === undefined ? "–" : formatBytes(memoryBytes),
      ];
      const data = cells.map((text) => createElement("td", {}, text));
      return createElement("tr", {}, createElement("th", { scope: "row" }, String(rank)), ...data);
    });
    this.#body.replaceChildren(...rows);
  }
}

class Samples {
  readonly #panel = createSection("Samples, before and after", "samples");
  readonly section = this.#panel.section;
  readonly #choice = createElement("select", { id: "sample-step" });
  readonly #list = createElement("div");
  #history: RunHistory | undefined;
  #drawnKey = "";

  constructor() {
    const label = createElement("label", { for: "sample-step" }, "at step ");
    this.#panel.body.append(createElement("p", {}, label, this.#choice), this.#list);
    this.#choice.addEventListener("change", () => this.#show());
  }

  draw(history: RunHistory): void {
    this.section.hidden = history.samples.length === 0;
    const steps = history.samples.map(({ step }) => String(step));
    const seen = steps.join();
    if (history === this.#history && seen === this.#drawnKey) return;
    // If the newest sample is selected, the selection follows new samples.
    const newest = this.#choice.selectedIndex === this.#choice.options.length - 1;
    const before = history === this.#history && !newest ? this.#choice.value : steps.at(-1);
    [this.#history, this.#drawnKey] = [history, seen];
    this.#choice.replaceChildren(...steps.map((step) => createElement("option", { value: step }, step)));
    this.#choice.value = before ?? "";
    this.#show();
  }

  #show(): void {
    const chosen = this.#history?.samples.find(({ step }) => String(step) === this.#choice.value);
    const cards = (chosen?.texts ?? []).map(({ prompt, base, tuned }) =>
      createElement(
        "article",
        {},
        createElement("p", { class: "prompt" }, prompt),
        createElement(
          "dl",
          {},
          createElement("dt", {}, "before"),
          createElement("dd", {}, base === "" ? "(nothing)" : base),
          createElement("dt", {}, "with the adapter"),
          createElement("dd", {}, tuned === "" ? "(nothing)" : tuned),
        ),
      ),
    );
    this.#list.replaceChildren(...cards);
  }
}

class Rows {
  readonly #panel = createSection("Rows as trained", "rows");
  readonly section = this.#panel.section;
  #drawnRows: RunHistory["rows"] | undefined;

  draw({ rows }: RunHistory): void {
    this.section.hidden = rows.length === 0;
    if (rows === this.#drawnRows) return;
    this.#drawnRows = rows;
    const items = rows.map((parts) =>
      createElement(
        "li",
        {},
        ...parts.map(({ text, trained }) => (trained ? createElement("mark", {}, text) : text)),
      ),
    );
    this.#panel.body.replaceChildren(
      createElement("p", {}, "Highlighted tokens are trained."),
      createElement("ol", { class: "texts" }, ...items),
    );
  }
}

class Settings {
  readonly #panel = createSection("Settings", "settings");
  readonly section = this.#panel.section;
  #drawnSettings: unknown;

  draw({ start }: RunHistory): void {
    this.section.hidden = start === undefined;
    if (start === undefined || start === this.#drawnSettings) return;
    this.#drawnSettings = start;
    const lines = Object.entries(start)
      .filter(([name]) => !LEFT_OUT.has(name))
      .map(([name, value]) =>
        createElement(
          "div",
          {},
          createElement("dt", {}, toWords(name)),
          createElement("dd", {}, formatSetting(value)),
        ),
      );
    this.#panel.body.replaceChildren(createElement("dl", {}, ...lines));
  }
}

class Messages {
  readonly #panel = createSection("Messages", "messages");
  readonly section = this.#panel.section;
  #drawnMessages: unknown;

  draw({ messages }: RunHistory): void {
    this.section.hidden = messages.length === 0;
    const last = messages.at(-1);
    if (last === this.#drawnMessages) return;
    this.#drawnMessages = last;
    const lines = messages.toReversed().map(({ at, text }) => {
      const time = at === undefined ? "" : new Date(at).toLocaleTimeString();
      return createElement("li", {}, createElement("time", {}, time), ` ${text}`);
    });
    this.#panel.body.replaceChildren(createElement("ul", {}, ...lines));
  }
}

/** All panels of a run, in the order of the page. */
export class Panels {
  readonly sections: HTMLElement[];
  readonly #panels = [new Ranks(), new Samples(), new Rows(), new Settings(), new Messages()];

  constructor() {
    this.sections = this.#panels.map((panel) => panel.section);
  }

  draw(history: RunHistory): void {
    for (const panel of this.#panels) panel.draw(history);
  }
}
