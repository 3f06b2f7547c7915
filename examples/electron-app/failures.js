// Shows errors next to the control that caused them, in the user's terms.
import { element, fileName, show } from "./elements.js";

const PLAIN = {
  ERR_CHAT_TEMPLATE:
    "These rows are messages, and the model has no chat template. Choose a chat model, or rows with a prompt and a completion.",
  ERR_DEVICE_LOST: "The graphics device stopped responding. Choose another device, or try again.",
  ERR_DISCONNECTED: "The training process ended unexpectedly.",
  ERR_HUB: "The hub did not give this model. Check its name and the connection.",
  ERR_NATIVE_LOAD: "The training engine does not run on this computer.",
  ERR_NO_GPU: "This graphics device cannot be used. Choose another device.",
  ERR_OUT_OF_MEMORY: "There is not enough memory. Close other programs, or choose a smaller model.",
  ERR_OUTPUT_EXISTS: "Another process is training this run.",
  ERR_WRITE: "The run could not be saved. Check that the disk has free space.",
};

/** Returns an error's message, with the given paths shortened to their last components. */
export function plain({ code, message }, paths = []) {
  const about = paths.find((path) => message.includes(path));
  if (code === "ERR_FILE_NOT_FOUND" && about !== undefined && message.includes("no such"))
    return `${fileName(about)} is no longer there. Choose it again.`;
  if (code === "ERR_FILE_NOT_FOUND" && message.includes("config.json"))
    return `There is no model in ${fileName(about)}.`;
  if (code in PLAIN) return PLAIN[code];
  const text = paths
    .reduce((all, path) => all.replaceAll(path, fileName(path)), message)
    .replace(/^([^:]+):(\d+): /, "Line $2 of $1: ");
  return text.endsWith(".") ? text : `${text}.`;
}

/** Runs the action of a click and shows its error in the element `place`. */
export async function attempt(place, work, paths = () => []) {
  element(place).hidden = true;
  try {
    await work();
  } catch (error) {
    fail(place, plain(error, paths()));
  }
}

export function fail(place, text) {
  show(place, text);
  element(place).hidden = false;
}
