// All that the page has of the app: two questions to the main process, and a port to the process that trains. The port
// goes through a message of the window, since the bridge between contexts carries none.
const { contextBridge, ipcRenderer } = require("electron");

contextBridge.exposeInMainWorld("app", {
  places: () => ipcRenderer.invoke("places"),
  choose: (kind) => ipcRenderer.invoke("choose", kind),
});

ipcRenderer.on("lost", () => window.postMessage("lost", "*"));
ipcRenderer.on("trainer", (event) => window.postMessage("port", "*", event.ports));
window.addEventListener("message", (event) => {
  if (event.source === window && event.data === "port?") ipcRenderer.send("trainer");
});
