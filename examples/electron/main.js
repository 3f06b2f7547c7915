// The main process: a window, a utility process that trains, and a port from the one to the other.
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { app, BrowserWindow, ipcMain, MessageChannelMain, utilityProcess } from "electron";

const here = dirname(fileURLToPath(import.meta.url));
/** The model and the text that come with the package. An app's own lie outside of its archive. */
const embedded = join(
  dirname(createRequire(import.meta.url).resolve("lowrank/package.json")),
  "models",
  "default",
);
/** Milliseconds that a step and its checkpoint may take when the app quits. */
const PATIENCE = 10_000;

let trainer;
/** Pages that have a port to it. */
const pages = new Set();
let quitting = false;

/** The process that trains; a new one where there is none, or no more. */
function running() {
  if (trainer === undefined) {
    const started = utilityProcess.fork(join(here, "trainer.js"), [], { serviceName: "trainer" });
    started.once("exit", () => {
      if (trainer === started) trainer = undefined;
      // A page's port does not say in every Chromium that its other end is gone.
      for (const page of pages) if (!quitting && !page.isDestroyed()) page.send("lost");
      pages.clear();
    });
    trainer = started;
  }
  return trainer;
}

app.on("window-all-closed", () => app.quit());

// A run that goes on saves a checkpoint before the app is gone.
app.on("before-quit", (event) => {
  quitting = true;
  if (trainer === undefined) return;
  event.preventDefault();
  const ending = trainer;
  const timer = setTimeout(() => ending.kill(), PATIENCE);
  ending.once("exit", () => {
    clearTimeout(timer);
    app.quit();
  });
  ending.postMessage("quit");
});

// A page asks when it is loaded, and again when the process that trained has ended.
ipcMain.on("trainer", ({ sender }) => {
  const { port1, port2 } = new MessageChannelMain();
  running().postMessage("port", [port1]);
  pages.add(sender);
  const paths = {
    model: embedded,
    data: join(embedded, "moby-dick.txt"),
    output: join(app.getPath("userData"), "adapter"),
  };
  sender.postMessage("trainer", paths, [port2]);
});

// Not awaited: Electron is ready only once this module has been evaluated.
app.whenReady().then(() => {
  const window = new BrowserWindow({
    webPreferences: { preload: join(here, "preload.cjs"), contextIsolation: true, sandbox: true },
  });
  return window.loadFile(join(here, "page.html"));
});
