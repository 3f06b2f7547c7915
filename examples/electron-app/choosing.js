// Parts 1 and 2 of the page: choosing the model, and the data, shown as tokens.
import { compact, count, element, fileName, make, show } from "./elements.js";
import { attempt } from "./failures.js";
import { changed, ROWS_PER_STEP, state } from "./state.js";

const LABELS = "These rows have labels, which a language model does not learn";
/** Counts inspections of paths: a result is dropped if a later inspection has started. */
let looks = 0;

/** Inspects a path; undefined if another path was chosen meanwhile. */
async function look(place, path, model) {
  const own = ++looks;
  show(place, `Reading ${fileName(path)} …`);
  element(place).title = path;
  try {
    const found = await state.questions.ask("inspect", { path, model }, ({ bytesRead, bytes }) =>
      show(place, `Downloading ${path}: ${Math.floor((100 * bytesRead) / bytes)}%`),
    );
    return own === looks ? found : undefined;
  } catch (error) {
    if (own !== looks) return undefined;
    show(place, "None chosen.");
    throw error;
  }
}

export function takeModel(path) {
  return attempt(
    "model-error",
    () => readModel(path),
    () => [path],
  );
}

async function readModel(path) {
  if (!path) return;
  state.model = undefined;
  changed();
  const found = await look("model", path);
  if (found === undefined) return;
  const name = path === state.places.model ? "Included model" : fileName(found.source);
  const problem =
    found.kind !== "model"
      ? `${name} is not a model.`
      : !found.fits
        ? `${name} cannot be used: ${found.problems.join("; ")}.`
        : !/CausalLM|LMHead/.test(found.loadedAs)
          ? `${name} is not a language model, which this app trains.`
          : undefined;
  if (problem !== undefined) {
    show("model", "None chosen.");
    throw new Error(problem.slice(0, -1));
  }
  state.model = found;
  const chat = found.tokenizer?.chatTemplate ? " · chat model" : "";
  const size = `${compact(found.parameters)} parameters · texts of up to ${count(found.context)} tokens`;
  show("model", `${name} · ${size}${chat}`);
  // Small models need higher learning rates.
  element("rate").value = found.parameters < 1e8 ? 0.005 : 0.0002;
  changed();
  if (state.data !== undefined) await takeData(state.data.file);
}

export function takeData(path) {
  return attempt(
    "data-error",
    () => readData(path),
    () => [path],
  );
}

async function readData(path) {
  if (!path) return;
  if (state.model === undefined) throw new Error("Choose a model first");
  state.data = undefined;
  for (const id of ["data-notices", "data-rows"]) element(id).replaceChildren();
  element("data-legend").hidden = true;
  changed();
  const found = await look("data", path, state.model.path).catch((error) => {
    throw error.code === "ERR_UNSUPPORTED_MODEL" ? new Error(LABELS) : error;
  });
  if (found === undefined) return;
  if (found.kind !== "data") throw new Error(`${fileName(path)} holds no training data`);
  if (found.classes !== undefined) throw new Error(LABELS);
  state.data = found;
  const { rows, kept, cut, trainedTokens } = found;
  const parts = [
    fileName(found.file),
    kept === rows ? `${count(rows)} rows` : `${count(kept)} of ${count(rows)} rows can be used`,
    ...(cut > 0 ? [`${count(cut)} cut to the model's length`] : []),
    `${count(trainedTokens)} tokens to learn`,
  ];
  show("data", parts.join(" · "));
  element("data-notices").replaceChildren(...found.notices.map((text) => make("li", text)));
  element("data-legend").hidden = false;
  element("data-rows").replaceChildren(
    ...found.first.map((row) => {
      const item = make("li", "");
      // End tokens are hidden.
      const shown = ({ text, trained }) => make(trained ? "mark" : "span", text.replace(/<\/s>$/, ""));
      item.append(...row.map(shown));
      return item;
    }),
  );
  // Three passes over the data, but at least as many steps as a few rows need.
  element("steps").value = Math.min(Math.max(Math.ceil((3 * kept) / ROWS_PER_STEP), 60), 1000);
  changed();
}

export function listenToChoices() {
  const on = (id, work) => element(id).addEventListener("click", () => void work());
  on("model-embedded", () => takeModel(state.places.model));
  on("model-folder", async () => takeModel(await window.app.choose("folder")));
  on("model-gguf", async () => takeModel(await window.app.choose("gguf")));
  element("hub").addEventListener("submit", (event) => {
    event.preventDefault();
    void takeModel(element("model-hub").value.trim());
  });
  on("data-example", () => takeData(state.places.data));
  on("data-file", async () => takeData(await window.app.choose("data")));
}
