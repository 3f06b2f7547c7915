// Part 3 of the page: starts runs, and shows one of them with its buttons.
import { drawCurve } from "./curve.js";
import { count, duration, element, fileName, lossText, make, show } from "./elements.js";
import { attempt, fail, plain } from "./failures.js";
import { changed, onChange, ownRuns, ROWS_PER_STEP, shownRun, state } from "./state.js";

/** Reads the runs from their folder again. */
export async function refreshRuns() {
  const { adapters, model, data } = state.places;
  state.runs = await state.questions.ask("runs", { folder: adapters, included: [model, data] });
  changed();
}

/** Trains, and shows errors in the element `place`. */
async function train(place, record, options) {
  // The Stop button refers to the training run, so only one may run.
  if (state.training !== undefined) return fail(place, "A run is in progress. Stop it first.");
  const training = { record, run: undefined };
  Object.assign(state, { training, selected: record.output });
  for (const id of ["train-error", "run-error"]) element(id).hidden = true;
  element("run-notices").replaceChildren();
  show("figures", "Loading …");
  changed();
  try {
    await state.questions.ask("release");
    training.run = state.client.finetune({ ...options, output: record.output, model: record.model });
    changed();
    for await (const event of training.run) take(record, event);
    await training.run.result;
  } catch (error) {
    // Disconnected until a new process connects.
    if (error.code === "ERR_DISCONNECTED") state.client = undefined;
    // After the first step, errors are shown next to the run's buttons.
    tell(record.points.length > 0 ? "run-error" : place, error, record);
  } finally {
    state.training = undefined;
    show("figures", "");
    void window.app.progress(-1);
    changed();
    // The runs are read by the process that replaces an ended one.
    await refreshRuns().catch(() => {});
  }
}

function take(record, event) {
  if (event.type === "start") {
    const { steps, resumedFrom, deviceName } = event;
    // A resumed run repeats the steps after its checkpoint.
    const points = record.points.filter(([step]) => step <= resumedFrom);
    Object.assign(record, { steps, points, step: resumedFrom, device: deviceName });
    changed();
  }
  if (event.type === "checkpoint") Object.assign(record, { saved: event.step, adapter: event.path });
  if (event.type === "warning") element("run-notices").append(make("li", event.message));
  if (event.type !== "step") return;
  const { step, steps, loss, tokensPerSecond, etaSeconds, memoryBytes } = event;
  record.step = step;
  record.points.push([step, loss]);
  drawCurve(element("curve"), record);
  element("progress").value = step / steps;
  void window.app.progress(step / steps);
  const figures = [
    `Step ${count(step)} of ${count(steps)}`,
    `loss ${lossText(loss)}`,
    `${duration(etaSeconds)} left`,
    `${count(Math.round(tokensPerSecond))} tokens/s`,
    `${count(Math.round(memoryBytes / 1e6))} MB`,
  ];
  show("figures", figures.join(" · "));
}

function tell(place, error, { data, model, output }) {
  const missing = error.code === "ERR_FILE_NOT_FOUND";
  const name = fileName(data);
  if (missing && error.message.includes("data") && place === "run-error")
    fail(place, `${name}, the data of this run, is no longer there. Choose it in part 2, then resume.`);
  else if (missing && error.message.includes(data))
    fail("data-error", `${name} is no longer there. Choose it again.`);
  else fail(place, plain(error, [output, data, model]));
}

function startRun() {
  const { model, data, places } = state;
  const stem = fileName(data.file).replace(/\.\w+$/, "");
  // Colons are not allowed in names on Windows.
  const output = `${places.adapters}/${stem} ${new Date().toISOString().slice(0, 23).replaceAll(":", ".")}`;
  const steps = element("steps").valueAsNumber;
  const record = {
    output,
    model: model.path,
    data: data.file,
    started: Date.now(),
    steps,
    step: 0,
    points: [],
  };
  if (state.training === undefined) state.runs.unshift(record);
  return train("train-error", record, {
    data: data.file,
    lora: { r: element("rank").valueAsNumber },
    optimizer: { lr: element("rate").valueAsNumber },
    steps,
    gradientAccumulation: ROWS_PER_STEP,
    device: element("device").value,
    // Limits the loss from a crash. Checkpoints of a small model take almost no time.
    saveEvery: model.parameters < 1e8 ? "5s" : "2m",
  });
}

function resumeRun() {
  const record = shownRun();
  // The user has chosen the new path of data that has moved.
  const moved = state.data !== undefined && fileName(state.data.file) === fileName(record.data);
  return train("run-error", record, { resume: true, data: moved ? state.data.file : record.data });
}

/** Describes a run that is not training. */
function describe({ done, step, steps, saved, points }) {
  if (done)
    return `Finished after ${count(steps)} steps, with a loss of ${lossText(points.at(-1)?.[1] ?? 0)}.`;
  const at = `Stopped at step ${count(step)} of ${count(steps)}`;
  if (saved === undefined) return `${at}, before its first checkpoint. Train it again.`;
  return saved < step ? `${at}. Resume continues from step ${count(saved)}.` : `${at}, and saved.`;
}

const title = ({ data, started }) =>
  `${fileName(data).replace(/\.\w+$/, "")}, ${new Date(started).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" })}`;

/** Shows the number of passes over the data. */
function showPasses() {
  const passes = (element("steps").valueAsNumber * ROWS_PER_STEP) / (state.data?.kept ?? NaN);
  const times = passes < 10 ? passes.toFixed(1) : count(Math.round(passes));
  show(
    "passes",
    passes > 0
      ? `A step learns from ${ROWS_PER_STEP} rows. The run goes through the data ${times} times.`
      : "",
  );
}

/** Shows the state and enables the possible actions. */
function render() {
  const { training, model, data, client } = state;
  const shown = shownRun();
  element("train").disabled = training !== undefined || client === undefined || !model || !data?.kept;
  showPasses();
  element("run").hidden = shown === undefined;
  if (shown === undefined) return;
  const options = ownRuns().map((run) => new Option(title(run), run.output));
  element("runs").replaceChildren(...options);
  element("runs").value = shown.output;
  element("runs").disabled = training !== undefined;
  element("stop").disabled = training?.run === undefined;
  element("resume").disabled =
    training !== undefined || client === undefined || shown.done || shown.saved === undefined;
  const where = shown.device === undefined ? "" : ` on ${shown.device}`;
  show("state", training === undefined ? describe(shown) : `Training${where}.`);
  element("progress").value = shown.step / shown.steps;
  drawCurve(element("curve"), shown);
}

export function listenToTraining() {
  onChange(render);
  element("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    void startRun();
  });
  element("steps").addEventListener("input", showPasses);
  element("stop").addEventListener("click", () => {
    element("stop").disabled = true;
    show("state", "Finishing the step, to save a checkpoint.");
    void state.training?.run?.stop().catch(() => {});
  });
  element("resume").addEventListener("click", () => void resumeRun());
  element("folder").addEventListener(
    "click",
    () => void attempt("run-error", () => window.app.showRun(fileName(shownRun().output))),
  );
  element("runs").addEventListener("change", ({ target }) => {
    state.selected = target.value;
    for (const id of ["run-error", "run-notices"]) show(id, "");
    element("run-error").hidden = true;
    changed();
  });
}
