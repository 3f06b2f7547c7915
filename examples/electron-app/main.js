// The main process: the window, the process that trains, a port between them, and tasks that a page cannot perform: file
// dialogs, folders, the task bar.
import { mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import {
  app,
  BrowserWindow,
  dialog,
  ipcMain,
  MessageChannelMain,
  powerSaveBlocker,
  protocol,
  session,
  shell,
  utilityProcess,
} from "electron";

const here = dirname(fileURLToPath(import.meta.url));
const PAGE = "app://adapter/page.html";
/** All files that the page can load, with their content types. */
const FILES = new Map([
  ["/page.html", "text/html"],
  ["/page.css", "text/css"],
  ["/page.bundle.js", "text/javascript"],
]);
const places = {
  /** The package's embedded model; in a packed app, lowrank finds it outside the archive. */
  model: join(dirname(createRequire(import.meta.url).resolve("lowrank/package.json")), "models", "default"),
  data: join(app.isPackaged ? process.resourcesPath : here, "village.jsonl"),
  /** The folder with one subfolder per run. */
  adapters: join(app.getPath("userData"), "adapters"),
};

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

const CHOICES = {
  folder: { properties: ["openDirectory"] },
  gguf: { properties: ["openFile"], filters: [{ name: "GGUF", extensions: ["gguf"] }] },
  data: {
    properties: ["openFile"],
    filters: [{ name: "Data", extensions: ["jsonl", "json", "csv", "txt"] }],
  },
};

/** Requests that the page may make. */
const HANDLERS = {
  places: () => places,
  /** The path that the user chose, if any. */
  choose: async (kind) => (await dialog.showOpenDialog(window, CHOICES[kind])).filePaths[0],
  showRun: (name) => shell.showItemInFolder(join(places.adapters, basename(name))),
  /** The completed fraction of the run; below 0 if none is running. */
  progress(share) {
    window.setProgressBar(share);
    keepAwake(share >= 0);
  },
};

let blocker;

/** Prevents the computer from sleeping during a run. */
function keepAwake(on) {
  if (on) blocker ??= powerSaveBlocker.start("prevent-app-suspension");
  else if (blocker !== undefined) {
    powerSaveBlocker.stop(blocker);
    blocker = undefined;
  }
}

/** Connects a page with a port when it is loaded, and again after the training process has ended. */
function connectPage({ sender, senderFrame }) {
  if (quitting || senderFrame?.url !== PAGE) return;
  const { port1, port2 } = new MessageChannelMain();
  startTrainer().postMessage("port", [port1]);
  sender.postMessage("port", undefined, [port2]);
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
    detail: "Quitting without it loses the steps since the last checkpoint.",
    buttons: ["Wait", "Quit without saving"],
    defaultId: 0,
    cancelId: 0,
  });
  if (response === 1) trainer?.kill();
}

async function openWindow() {
  mkdirSync(places.adapters, { recursive: true });
  protocol.handle("app", async ({ url }) => {
    const { pathname } = new URL(url);
    const type = FILES.get(pathname);
    if (type === undefined) return new Response("not found", { status: 404 });
    return new Response(await readFile(join(here, pathname)), { headers: { "content-type": type } });
  });
  session.defaultSession.setPermissionRequestHandler((_page, _permission, answer) => answer(false));
  window = new BrowserWindow({
    width: 960,
    height: 900,
    minWidth: 360,
    minHeight: 400,
    show: false,
    webPreferences: {
      preload: join(here, "preload.cjs"),
      contextIsolation: true,
      sandbox: true,
      nodeIntegration: false,
    },
  });
  window.once("ready-to-show", () => window.show());
  window.webContents.setWindowOpenHandler(() => ({ action: "deny" }));
  window.webContents.on("will-navigate", (event) => event.preventDefault());
  // Keeps the window open until the run is saved.
  window.on("close", (event) => {
    if (trainer === undefined) return;
    event.preventDefault();
    app.quit();
  });
  await window.loadURL(PAGE);
}

// Two instances would share the folder of the runs, so a second one only shows the window of the first.
if (app.requestSingleInstanceLock()) {
  protocol.registerSchemesAsPrivileged([{ scheme: "app", privileges: { standard: true, secure: true } }]);
  app.on("second-instance", () => {
    if (window?.isMinimized()) window.restore();
    window?.focus();
  });
  app.on("before-quit", (event) => void quitAfterCheckpoint(event));
  app.on("window-all-closed", () => app.quit());
  ipcMain.on("trainer", connectPage);
  for (const [name, work] of Object.entries(HANDLERS))
    ipcMain.handle(name, ({ senderFrame }, argument) => {
      if (senderFrame?.url === PAGE) return work(argument);
    });
  // Not awaited: Electron is ready only once this module has been evaluated.
  app.whenReady().then(openWindow);
} else app.quit();
