// The page: starts, watches, stops and resumes a run.
import { connect } from "lowrank/electron";

/** Remedies for errors. */
const ADVICE = {
  ERR_DISCONNECTED: "the training process ended unexpectedly; resume the run from its last checkpoint",
  ERR_FILE_NOT_FOUND: "this run has saved no checkpoint; start a new one",
  ERR_OUT_OF_MEMORY: "there is not enough memory; close other programs, then resume",
};

const element = (id) => document.getElementById(id);
const show = (text) => (element("state").textContent = text);

let client;
let paths;
let run;
/** The folder of the run that can be resumed. */
let output;

/** Enables the possible actions. */
function settle() {
  element("start").disabled = client === undefined || run !== undefined;
  element("stop").disabled = run === undefined;
  element("resume").disabled = client === undefined || run !== undefined || output === undefined;
}

async function train(options) {
  // The Stop button refers to the training run, so only one may run.
  if (run !== undefined) return show("a run is in progress; stop it first");
  ({ output } = options);
  show("loading");
  try {
    run = client.finetune(options);
    settle();
    for await (const event of run) {
      if (event.type === "start") show(`training on ${event.deviceName}`);
      if (event.type === "step") showStep(event);
    }
    const { steps, stopped } = await run.result;
    if (!stopped) output = undefined;
    show(stopped ? `stopped at step ${steps}; a checkpoint is saved` : `done after ${steps} steps`);
  } catch (error) {
    // Disconnected until a new process connects.
    if (error.code === "ERR_DISCONNECTED") client = undefined;
    show(ADVICE[error.code] ?? error.message);
  } finally {
    run = undefined;
    settle();
  }
}

function showStep({ step, steps, loss, etaSeconds }) {
  element("progress").value = step / steps;
  element("step").textContent =
    `step ${step} of ${steps}, loss ${loss.toFixed(2)}, ${Math.ceil(etaSeconds)} s left`;
}

/** Takes the port that the main process made. */
async function connected({ trainer }, [port]) {
  const first = paths === undefined;
  paths = trainer;
  const opened = connect(port);
  try {
    const { runs } = await opened.findRuns(paths.adapters);
    const last = runs.at(-1);
    if (last !== undefined && last.state !== "ended" && last.checkpoint !== null) output ??= last.folder;
    client = opened;
    if (first) show(output === undefined ? "ready" : "ready; the last run can be resumed");
  } catch (error) {
    show(error.message);
  }
  settle();
}

/** The training process has ended: its run rejects, and a new process is requested. */
function lost() {
  client?.close();
  client = undefined;
  settle();
  window.postMessage("trainer?", location.origin);
}

window.addEventListener("message", (event) => {
  if (event.source !== window) return;
  if (event.data === "lost") lost();
  if (event.data === "quitting" && run !== undefined) show("saving a checkpoint before the app closes");
  if (event.data?.trainer !== undefined) void connected(event.data, event.ports);
});
element("start").addEventListener("click", () => {
  const { model, data, adapters } = paths;
  // Each run has a separate folder. Colons are not allowed in names on Windows.
  const folder = `${adapters}/${new Date().toISOString().replaceAll(":", ".")}`;
  return train({ model, data, output: folder, epochs: 1, maxLength: 128, saveEvery: 20, lora: { r: 8 } });
});
element("stop").addEventListener("click", () => run?.stop());
element("resume").addEventListener("click", () => {
  const { model, data } = paths;
  // The paths of an app and its files may change with the next start.
  return train({ model, data, output, resume: true });
});
window.postMessage("trainer?", location.origin);
