// Forwards the port to the page by a window message, since the context bridge cannot transfer ports.
const { ipcRenderer } = require("electron");

ipcRenderer.on("trainer", (event, paths) =>
  window.postMessage({ trainer: paths }, location.origin, event.ports),
);
for (const name of ["lost", "quitting"])
  ipcRenderer.on(name, () => window.postMessage(name, location.origin));
window.addEventListener("message", (event) => {
  if (event.source === window && event.data === "trainer?") ipcRenderer.send("trainer");
});
