// Hands the port on to the page, which has no other way to the app: it goes through a message of the window, since the
// bridge between contexts carries no ports.
const { ipcRenderer } = require("electron");

ipcRenderer.on("lost", () => window.postMessage("lost", "*"));
ipcRenderer.on("trainer", (event, paths) => window.postMessage({ trainer: paths }, "*", event.ports));
window.addEventListener("message", (event) => {
  if (event.source === window && event.data === "trainer?") ipcRenderer.send("trainer");
});
