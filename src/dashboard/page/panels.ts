/** The panels of a run: samples, training rows, settings and messages. */
import { element, section } from "./element.js";
import { figure } from "./figures.js";
import type { RunHistory } from "./history.js";

/** Fields of the start event that the settings omit. */
const LEFT_OUT = new Set(["type", "at", "data"]);

/** Converts an option's name to words: maxLength becomes max length. */
function words(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

function shown(value: unknown): string {
  if (typeof value === "number")
    return Number.isInteger(value) ? value.toLocaleString("en-US") : figure(value);
  if (Array.isArray(value)) return value.map(shown).join(", ");
  if (typeof value === "object" && value !== null) return JSON.stringify(value);
  return value === "" ? "–" : String(value);
}

class Samples {
  readonly #made = section("Samples, before and after", "samples");
  readonly section = this.#made.section;
  readonly #choice = element("select", { id: "sample-step" });
  readonly #list = element("div");
  #history: RunHistory | undefined;
  #seen = "";

  constructor() {
    const label = element("label", { for: "sample-step" }, "at step ");
    this.#made.body.append(element("p", {}, label, this.#choice), this.#list);
    this.#choice.addEventListener("change", () => this.#show());
  }

  draw(history: RunHistory): void {
    this.section.hidden = history.samples.length === 0;
    const steps = history.samples.map(({ step }) => String(step));
    const seen = steps.join();
    if (history === this.#history && seen === this.#seen) return;
    // If the newest sample is selected, the selection follows new samples.
    const newest = this.#choice.selectedIndex === this.#choice.options.length - 1;
    const before = history === this.#history && !newest ? this.#choice.value : steps.at(-1);
    [this.#history, this.#seen] = [history, seen];
    this.#choice.replaceChildren(...steps.map((step) => element("option", { value: step }, step)));
    this.#choice.value = before ?? "";
    this.#show();
  }

  #show(): void {
    const chosen = this.#history?.samples.find(({ step }) => String(step) === this.#choice.value);
    const cards = (chosen?.texts ?? []).map(({ prompt, base, tuned }) =>
      element(
        "article",
        {},
        element("p", { class: "prompt" }, prompt),
        element(
          "dl",
          {},
          element("dt", {}, "before"),
          element("dd", {}, base === "" ? "(nothing)" : base),
          element("dt", {}, "with the adapter"),
          element("dd", {}, tuned === "" ? "(nothing)" : tuned),
        ),
      ),
    );
    this.#list.replaceChildren(...cards);
  }
}

class Rows {
  readonly #made = section("Rows as trained", "rows");
  readonly section = this.#made.section;
  #seen: RunHistory["rows"] | undefined;

  draw({ rows }: RunHistory): void {
    this.section.hidden = rows.length === 0;
    if (rows === this.#seen) return;
    this.#seen = rows;
    const items = rows.map((parts) =>
      element("li", {}, ...parts.map(({ text, trained }) => (trained ? element("mark", {}, text) : text))),
    );
    this.#made.body.replaceChildren(
      element("p", {}, "Highlighted tokens are trained."),
      element("ol", { class: "texts" }, ...items),
    );
  }
}

class Settings {
  readonly #made = section("Settings", "settings");
  readonly section = this.#made.section;
  #seen: unknown;

  draw({ start }: RunHistory): void {
    this.section.hidden = start === undefined;
    if (start === undefined || start === this.#seen) return;
    this.#seen = start;
    const lines = Object.entries(start)
      .filter(([name]) => !LEFT_OUT.has(name))
      .map(([name, value]) =>
        element("div", {}, element("dt", {}, words(name)), element("dd", {}, shown(value))),
      );
    this.#made.body.replaceChildren(element("dl", {}, ...lines));
  }
}

class Messages {
  readonly #made = section("Messages", "messages");
  readonly section = this.#made.section;
  #seen: unknown;

  draw({ messages }: RunHistory): void {
    this.section.hidden = messages.length === 0;
    const last = messages.at(-1);
    if (last === this.#seen) return;
    this.#seen = last;
    const lines = messages.toReversed().map(({ at, text }) => {
      const time = at === undefined ? "" : new Date(at).toLocaleTimeString();
      return element("li", {}, element("time", {}, time), ` ${text}`);
    });
    this.#made.body.replaceChildren(element("ul", {}, ...lines));
  }
}

/** The panels of a run, the widest first. */
export class Panels {
  readonly sections: HTMLElement[];
  readonly #panels = [new Samples(), new Rows(), new Settings(), new Messages()];

  constructor() {
    this.sections = this.#panels.map((panel) => panel.section);
  }

  draw(history: RunHistory): void {
    for (const panel of this.#panels) panel.draw(history);
  }
}
