// The page's access to the app: four requests to the main process, and a port to the training process. The port is passed
// by a window message, since the context bridge cannot transfer ports.
const { contextBridge, ipcRenderer } = require("electron");

contextBridge.exposeInMainWorld("app", {
  places: () => ipcRenderer.invoke("places"),
  choose: (kind) => ipcRenderer.invoke("choose", kind),
  showRun: (name) => ipcRenderer.invoke("showRun", name),
  progress: (share) => ipcRenderer.invoke("progress", share),
});

ipcRenderer.on("port", (event) => window.postMessage("port", location.origin, event.ports));
for (const name of ["lost", "quitting"])
  ipcRenderer.on(name, () => window.postMessage(name, location.origin));
window.addEventListener("message", (event) => {
  if (event.source === window && event.data === "port?") ipcRenderer.send("trainer");
});
