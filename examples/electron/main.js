// The main process: a window, a utility process that trains, and a port between them.
import { mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { app, BrowserWindow, dialog, ipcMain, MessageChannelMain, protocol, utilityProcess } from "electron";

const here = dirname(fileURLToPath(import.meta.url));
/** The package's embedded model and text. An app's models must be outside of its archive. */
const included = join(
  dirname(createRequire(import.meta.url).resolve("lowrank/package.json")),
  "models",
  "default",
);
const PAGE = "app://lowrank/page.html";
/** All files that the page can load, with their content types. */
const FILES = new Map([
  ["/page.html", "text/html"],
  ["/page.bundle.js", "text/javascript"],
]);

let window;
let trainer;
let quitting = false;

/** Returns the process that trains; starts one if there is none. */
function startTrainer() {
  if (trainer !== undefined) return trainer;
  trainer = utilityProcess.fork(join(here, "trainer.js"), [], { serviceName: "trainer" });
  trainer.once("exit", () => {
    trainer = undefined;
    // Not every version of Chromium fires "close" at the page's port.
    if (!quitting) window.webContents.send("lost");
  });
  return trainer;
}

/** Connects a page with a port when it is loaded, and again after the training process has ended. */
function connectPage({ sender, senderFrame }) {
  if (quitting || senderFrame.url !== PAGE) return;
  const { port1, port2 } = new MessageChannelMain();
  startTrainer().postMessage("port", [port1]);
  const adapters = join(app.getPath("userData"), "adapters");
  mkdirSync(adapters, { recursive: true });
  const paths = { model: included, data: join(included, "moby-dick.txt"), adapters };
  sender.postMessage("trainer", paths, [port2]);
}

/** Quits after a run has saved a checkpoint, however long its step takes; at a second request the user decides. */
async function quitAfterCheckpoint(event) {
  if (trainer === undefined) return;
  event.preventDefault();
  if (!quitting) {
    quitting = true;
    window.webContents.send("quitting");
    trainer.once("exit", () => app.quit());
    trainer.postMessage("quit");
    return;
  }
  const { response } = await dialog.showMessageBox(window, {
    message: "The run is finishing its step, to save a checkpoint.",
    buttons: ["Wait", "Quit without saving"],
  });
  if (response === 1) trainer?.kill();
}

async function openWindow() {
  protocol.handle("app", async ({ url }) => {
    const { pathname } = new URL(url);
    const type = FILES.get(pathname);
    if (type === undefined) return new Response("not found", { status: 404 });
    return new Response(await readFile(join(here, pathname)), { headers: { "content-type": type } });
  });
  window = new BrowserWindow({
    webPreferences: { preload: join(here, "preload.cjs"), contextIsolation: true, sandbox: true },
  });
  // Keeps the window open until the run is saved.
  window.on("close", (event) => {
    if (trainer === undefined) return;
    event.preventDefault();
    app.quit();
  });
  await window.loadURL(PAGE);
}

// Two instances would share the folder of the runs.
if (app.requestSingleInstanceLock()) {
  protocol.registerSchemesAsPrivileged([{ scheme: "app", privileges: { standard: true, secure: true } }]);
  app.on("second-instance", () => {
    if (window?.isMinimized()) window.restore();
    window?.focus();
  });
  app.on("before-quit", (event) => void quitAfterCheckpoint(event));
  app.on("window-all-closed", () => app.quit());
  ipcMain.on("trainer", connectPage);
  // Not awaited: Electron is ready only once this module has been evaluated.
  app.whenReady().then(openWindow);
} else app.quit();
