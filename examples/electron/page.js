// The page: starts, watches, stops and resumes a run.
import { connect } from "lowrank/electron";

const element = (id) => document.getElementById(id);
const show = (text) => (element("state").textContent = text);

let client;
let paths;
let run;

window.addEventListener("message", (event) => {
  if (event.source !== window || event.data?.trainer === undefined) return;
  paths = event.data.trainer;
  client = connect(event.ports[0]);
  client.ready.then(
    () => show(run === undefined ? "ready" : "ready to resume"),
    (error) => show(error.message),
  );
});
// The process that trains is gone: a run of it ends with an error, and a new process gives a port.
window.addEventListener("message", (event) => {
  if (event.source !== window || event.data !== "lost") return;
  client.close();
  window.postMessage("trainer?", "*");
});
window.postMessage("trainer?", "*");

async function train(options) {
  show("loading");
  try {
    run = client.finetune(options);
    for await (const event of run) {
      if (event.type === "start") show(`${event.steps} steps on ${event.deviceName}`);
      if (event.type === "step") show(`step ${event.step} of ${event.steps}, loss ${event.loss.toFixed(4)}`);
    }
    const { adapter, steps, stopped } = await run.result;
    show(stopped ? `stopped at step ${steps}` : `done after ${steps} steps: ${adapter}`);
  } catch (error) {
    show(`${error.code}: ${error.message}`);
  }
}

element("start").addEventListener("click", () =>
  train({ ...paths, overwrite: true, epochs: 1, maxLength: 128, saveEvery: 20, lora: { r: 8 } }),
);
element("stop").addEventListener("click", () => run?.stop());
element("resume").addEventListener("click", () => train({ output: paths.output, resume: true }));
