// Hands the port on to the page, by a message of the window, since the bridge between contexts carries no ports.
const { ipcRenderer } = require("electron");

ipcRenderer.on("trainer", (event, paths) =>
  window.postMessage({ trainer: paths }, location.origin, event.ports),
);
for (const name of ["lost", "quitting"])
  ipcRenderer.on(name, () => window.postMessage(name, location.origin));
window.addEventListener("message", (event) => {
  if (event.source === window && event.data === "trainer?") ipcRenderer.send("trainer");
});
