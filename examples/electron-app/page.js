// The page: a model, data, a run, and a chat before and after. It has access to neither Node nor the engine; everything
// arrives over one port.
import { connect } from "lowrank/electron";

import { listenToChat } from "./chat.js";
import { listenToChoices, takeData, takeModel } from "./choosing.js";
import { element } from "./elements.js";
import { attempt } from "./failures.js";
import { Questions } from "./requests.js";
import { changed, state } from "./state.js";
import { listenToTraining, refreshRuns } from "./training.js";

/** Takes the port that the main process made. */
async function connected(port) {
  const questions = new Questions(port);
  const client = connect(port);
  await client.ready;
  const first = state.places === undefined;
  state.places ??= await window.app.places();
  element("device").replaceChildren(
    new Option("Automatic", "auto"),
    ...(await client.devices()).map(({ device, name }) => new Option(name, device)),
  );
  Object.assign(state, { client, questions });
  await refreshRuns();
  element("main").ariaBusy = "false";
  if (!first) return;
  // Restores the last state: the newest run, which may have been interrupted.
  const { model, data } = state.runs[0] ?? state.places;
  await takeModel(model);
  if (state.model !== undefined) await takeData(data);
}

/** The training process has ended: pending requests reject, and a new process is requested. */
function lost() {
  state.client?.close();
  state.questions?.lose();
  state.client = undefined;
  changed();
  window.postMessage("port?", location.origin);
}

window.addEventListener("message", (event) => {
  if (event.source !== window) return;
  if (event.data === "port") void attempt("app-error", () => connected(event.ports[0]));
  if (event.data === "lost") lost();
  if (event.data === "quitting" && state.training !== undefined) element("closing").showModal();
});
listenToChoices();
listenToTraining();
listenToChat();
window.postMessage("port?", location.origin);
